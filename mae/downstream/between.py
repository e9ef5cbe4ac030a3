"""Between the solved start of a fine-tuning and its best epoch (Wortsman et al. 2022, arXiv 2109.01903)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from mae.evaluation.paired import clearly_better

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""How far of the way the weights are taken that are compared: 0 is the start, 1 the best epoch."""


def mixed(start: Mapping[str, Tensor], best: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Return weights a share of the way from one state to another; what is no float, such as a count, is the other's."""
    return {
        name: start[name].lerp(value, share) if value.is_floating_point() else value for name, value in best.items()
    }


def nearest(right: Sequence[Tensor]) -> int:
    """Return the first of several points on the way that none after it is clearly better than.

    A point is better than another by luck, too: the best of many looks at the same images, by about a standard error.

    Args:
        right: For each point which of the same images are right, (N,) bool.
    """
    return next(i for i, ours in enumerate(right) if not any(clearly_better(other, ours) for other in right[i + 1 :]))
