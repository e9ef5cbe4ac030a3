"""Masks that follow what is there of an image."""

from __future__ import annotations

import torch
from torch import Tensor

from mae.masking.plan import MaskPlan
from mae.masking.samplers import RandomMasking


class WeightedMasking(RandomMasking):
    """Hide a share of the patches that hold pixels: of images without missing pixels as random masking does.

    Of an image that lacks pixels (not finite, no data, transparent) the share is taken of those patches that hold some, which are
    hidden the more readily the more they hold; one of them at least stays visible. Patches without a pixel fill up V and M.

    Args:
        ratio: Share of the patches to hide.
    """

    def __init__(self, ratio: float = 0.75) -> None:
        super().__init__(ratio)

    def weighted_plan(self, noise: Tensor, grid: tuple[int, int], weights: Tensor) -> MaskPlan:
        """Return the plan of noise (B, L) and the shares of patches that are there, (B, L).

        Which patches are hidden is a draw without replacement in proportion to the shares (Efraimidis and Spirakis 2006): those of
        the smallest -ln(noise) / share. With equal shares these are those of the highest noise, as in ``MaskPlan.from_noise``.
        """
        visible = self.check(grid)
        there = weights > 0
        count = there.sum(dim=1, keepdim=True)
        seen = (count * (1 - self.ratio) + 1e-6).floor().long().clamp(min=1).minimum(count)
        keys = -noise.double().log() / weights.double().clamp(min=1e-12)
        # Four groups: seen, seen without a pixel, hidden without a pixel, hidden. The first two are V, whatever their sizes.
        first = _rank(torch.where(there, -keys, torch.inf))
        empty = _rank(torch.where(there, torch.inf, noise.double()))
        group = torch.where(there, 3 * (first >= seen).long(), 1 + (empty >= visible - seen).long())
        order = (group * noise.shape[1] + torch.where(there, first, empty)).argsort(dim=1, stable=True)
        keep, masked = order[:, :visible], order[:, visible:]
        mask = torch.zeros(noise.shape, dtype=torch.bool, device=noise.device).scatter(1, masked, True)
        return MaskPlan(keep, masked, mask, grid)


def _rank(values: Tensor) -> Tensor:
    """Return the place of each value in its row, ascending; equal ones keep their order."""
    return values.argsort(dim=1, stable=True).argsort(dim=1, stable=True)
