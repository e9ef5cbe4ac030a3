"""Learning rates: the linear scaling rule, warm-up, and what follows it."""

from __future__ import annotations

import math
from collections.abc import Callable

SCHEDULES = ("cosine", "steps")


def scaled_lr(base_lr: float, effective_batch: int) -> float:
    """Return lr = base_lr * effective batch / 256 (Goyal et al. 2017); the batch counts every device and accumulation."""
    return base_lr * effective_batch / 256


def warmup_cosine(warmup_steps: int, total_steps: int, final: float = 0.0) -> Callable[[int], float]:
    """Return the factor on the learning rate at each step.

    It rises linearly to 1 over the warm-up, then falls along half a cosine to ``final`` (a share of the peak) at the
    end. The first step is already above zero: step 0 of a 10-step warm-up is 0.1. With ``final`` of 1 it stays at the peak.
    """

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))

    return factor


def warmup_steps_down(warmup_steps: int, every: int) -> Callable[[int], float]:
    """Return the factor on the learning rate at each step: 1 after a linear warm-up, and a tenth of it after ``every`` steps.

    Counted from the first step, as ResNets are trained (He et al. 2015, arXiv 1512.03385).
    """

    def factor(step: int) -> float:
        return (step + 1) / warmup_steps if step < warmup_steps else 0.1 ** (step // every)

    return factor
