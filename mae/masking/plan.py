"""The record that says which patches are hidden."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor


def check_ratio(ratio: float) -> None:
    """Raise a ValueError where a masking ratio hides all or no patches of whatever grid."""
    if not 0 < ratio < 1:
        raise ValueError(
            f"masking.ratio={ratio} hides all or no patches: choose a number between 0 and 1, such as 0.75"
        )


def visible_count(patches: int, ratio: float, what: str = "patches") -> int:
    """Return V, the number of visible patches out of L, for a masking ratio.

    Raises:
        ValueError: The ratio hides every patch or none.
    """
    visible = math.floor(patches * (1 - ratio) + 1e-6)
    if not 1 <= visible < patches:
        raise ValueError(
            f"masking.ratio={ratio} hides {patches - max(0, min(visible, patches))} of {patches} {what}; at least one must "
            f"stay visible and one be hidden: choose between {1 / patches:.3g} and {1 - 1 / patches:.3g}"
        )
    return visible


def gather_patches(patches: Tensor, index: Tensor) -> Tensor:
    """Select patches: (B, L, D) and (B, N) int64 to (B, N, D), in the order of the index."""
    return patches.gather(1, index.unsqueeze(-1).expand(-1, -1, patches.shape[-1]))


@dataclass(frozen=True, eq=False)
class MaskPlan:
    """Which of the L = Gh*Gw patches of each image are hidden. True = masked, everywhere.

    Attributes:
        keep: (B, V) int64, the visible patches, in the order in which the encoder sees them.
        masked: (B, M) int64, the hidden patches; a sampler gives them in an order drawn at random. Together with ``keep`` a
            partition of the L patches.
        mask: (B, L) bool, True where the patch is hidden.
        grid: (Gh, Gw).
    """

    keep: Tensor
    masked: Tensor
    mask: Tensor
    grid: tuple[int, int]

    @classmethod
    def from_noise(cls, noise: Tensor, grid: tuple[int, int], ratio: float) -> MaskPlan:
        """Keep the V patches of lowest noise, in order of noise, as the reference implementation does.

        Args:
            noise: (B, L) floats. Equal values keep their order, so that the plan is a function of the noise.
            grid: (Gh, Gw) with Gh*Gw = L.
            ratio: Share of the patches to hide; V = floor(L * (1 - ratio) + 1e-6).

        Raises:
            ValueError: The noise does not fit the grid, or the ratio hides all or no patches.
        """
        length = grid[0] * grid[1]
        if noise.ndim != 2 or noise.shape[1] != length:
            raise ValueError(
                f"noise of shape {tuple(noise.shape)} does not fit a {grid[0]}x{grid[1]} grid: (B, {length}) would"
            )
        visible = visible_count(length, ratio)
        order = noise.argsort(dim=1, stable=True)
        keep, masked = order[:, :visible], order[:, visible:]
        mask = torch.zeros(noise.shape, dtype=torch.bool, device=noise.device).scatter(1, masked, True)
        return cls(keep, masked, mask, grid)

    def shuffled(self, noise: Tensor) -> MaskPlan:
        """Return the same plan with the hidden patches in order of noise (B, L), so that the first of them are a random part."""
        order = noise.gather(1, self.masked).argsort(dim=1, stable=True)
        return replace(self, masked=self.masked.gather(1, order))

    def to(self, device: torch.device | str) -> MaskPlan:
        """Return the same plan on another device."""
        return MaskPlan(self.keep.to(device), self.masked.to(device), self.mask.to(device), self.grid)

    def hide(self, patches: Tensor, fill: Tensor | float = 0.0) -> Tensor:
        """Return patches (B, L, D) with ``fill`` in place of the hidden ones."""
        return torch.where(self.mask.unsqueeze(-1), torch.as_tensor(fill).to(patches), patches)
