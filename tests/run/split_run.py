"""A pretraining run in any precision, on one process or several: python -m tests.run.split_run float64 OVERRIDE..."""

from __future__ import annotations

import sys

import torch

from mae.config.composing import compose
from mae.run.pretrain import prepare

if __name__ == "__main__":
    precision, *overrides = sys.argv[1:]
    run = prepare(compose("pretrain", overrides), overrides)
    run.module.to(getattr(torch, precision))
    run.fit()
