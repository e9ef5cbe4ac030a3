"""How idle OpenMP threads wait, which is fixed as soon as torch is loaded: nothing here imports it."""

from __future__ import annotations

import os

DEFAULTS = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "5000"}


def calm_idle_threads() -> None:
    """Let an idle thread spin for a moment and then sleep, unless the environment says otherwise.

    GNU OpenMP's default, to spin for long, starves the processes that decode images and whatever else runs; no spinning at all
    gives up the second core for small models. An entry point calls this first; importing the package changes nothing.
    """
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
