"""Corrupted patch embeddings: masked, swapped or kept (Dosovitskiy et al. 2020, arXiv 2010.11929, appendix B.1.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mae.masking.plan import MaskPlan, gather_patches

MASKED = -1


@dataclass(frozen=True, eq=False)
class CorruptionPlan(MaskPlan):
    """Which of the L patch embeddings of each image are corrupted, and what stands in their places.

    Every patch is seen by the encoder; ``masked`` are the corrupted ones, whose colours are predicted.

    Attributes:
        source: (B, L) int64: the patch whose embedding stands in each place, its own where nothing is changed; -1 for the mask
            embedding.
    """

    source: Tensor

    @classmethod
    def draw(
        cls, noise: Tensor, grid: tuple[int, int], ratio: float, masked: float = 0.8, swapped: float = 0.1
    ) -> CorruptionPlan:
        """Corrupt a share of the patches: each gets the mask embedding, another patch's or its own, by a draw of its own.

        Args:
            noise: (B, 3, L) floats in [0, 1): which patches are corrupted, as ``MaskPlan.from_noise`` says; what happens to them;
                and which other patch of the same image stands in, never itself.
            grid: (Gh, Gw) with Gh*Gw = L.
            ratio: Share of the patches that are corrupted; the paper's is 0.5.
            masked: Share of these that become the mask embedding; the paper's is 0.8.
            swapped: Share of these that become another patch's; the paper's is 0.1, as many as stay.

        Raises:
            ValueError: The noise does not fit the grid, or the ratio corrupts all or no patches.
        """
        if noise.ndim != 3 or noise.shape[1] != 3:
            raise ValueError(f"noise of shape {tuple(noise.shape)} is not (B, 3, {grid[0] * grid[1]})")
        which, kind, other = noise.unbind(1)
        plan = MaskPlan.from_noise(which, grid, ratio)
        L = which.shape[1]
        own = torch.arange(L, device=noise.device).expand_as(plan.mask)
        # A step of 1 to L - 1 around the image reaches every patch but its own.
        another = (own + 1 + (other * (L - 1)).long()) % L
        changed = torch.where(kind < masked, MASKED, torch.where(kind < masked + swapped, another, own))
        return cls(plan.keep, plan.masked, plan.mask, grid, torch.where(plan.mask, changed, own))

    def to(self, device: torch.device | str) -> CorruptionPlan:
        """Return the same plan on another device."""
        plan = super().to(device)
        return CorruptionPlan(plan.keep, plan.masked, plan.mask, plan.grid, self.source.to(device))

    def hide(self, patches: Tensor, fill: Tensor | float = 0.0) -> Tensor:
        """Return patches or their embeddings (B, L, D), corrupted; ``fill`` (D) is the mask embedding."""
        moved = gather_patches(patches, self.source.clamp(min=0))
        return torch.where((self.source == MASKED).unsqueeze(-1), torch.as_tensor(fill).to(patches), moved)
