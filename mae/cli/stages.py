"""The two stages by the name of their config: imported when a run is prepared, so that help and slips of the hand cost no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mae.training.threads import calm_idle_threads

Prepare = Callable[[Any, Sequence[str]], Any]
"""A typed config and the overrides to a job whose every part is built."""


def load_stage(root: str) -> Prepare:
    """Return what prepares a run of ``pretrain`` or ``finetune``."""
    calm_idle_threads()  # before torch is loaded
    if root == "pretrain":
        from mae.run.pretrain import prepare as prepare_pretraining

        return prepare_pretraining
    from mae.downstream.prepare import prepare as prepare_second_stage

    return prepare_second_stage
