"""Masks with a shape: rectangles of patches, and a regular grid."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mae.masking.plan import MaskPlan, check_ratio, visible_count
from mae.masking.samplers import MaskSampler


class BlockMasking(MaskSampler):
    """Hide rectangles of patches until the share is reached (Bao et al. 2021, arXiv 2106.08254, algorithm 1).

    Rectangles are drawn one after the other, and patches are hidden in the order in which they are first covered; of the last
    rectangle, as many as are still to be hidden, drawn at random. So every image has as many hidden ones.

    Args:
        ratio: Share of the patches to hide; MAE's paper has 0.5 for blocks (table 1f), BEiT 0.4.
        smallest: Area of a rectangle at least, as a share of the grid; BEiT's is 16 of 196 patches.
        largest: Area at most; BEiT's is what is left to hide.
        aspect: Height over width at least, and width over height.
    """

    def __init__(self, ratio: float = 0.5, smallest: float = 0.08, largest: float = 0.4, aspect: float = 0.3) -> None:
        check_ratio(ratio)
        if not 0 < smallest <= largest <= 1:
            raise ValueError(
                f"masking.smallest={smallest} and masking.largest={largest} are no shares of the grid, from the smaller to the "
                f"larger: choose two between 0 and 1, such as 0.08 and 0.4"
            )
        if not 0 < aspect <= 1:
            raise ValueError(
                f"masking.aspect={aspect} is not the flattest side ratio: choose a number up to 1, such as 0.3"
            )
        self.ratio = ratio
        self.smallest = smallest
        self.largest = largest
        self.aspect = aspect

    @property
    def rectangles(self) -> int:
        """How many rectangles are drawn: four times what would do if none overlapped."""
        return math.ceil(4 * self.ratio / self.smallest)

    def numbers(self, grid: tuple[int, int]) -> tuple[int, ...]:
        """Return how many numbers there are: four for a rectangle, then one for a patch."""
        return (4 * self.rectangles + grid[0] * grid[1],)

    def plan(self, noise: Tensor, grid: tuple[int, int]) -> MaskPlan:
        """Return the plan of this noise, of a batch."""
        (Gh, Gw), K = grid, self.rectangles
        drawn, order = noise[:, : 4 * K], noise[:, 4 * K :]
        area, aspect, top, left = drawn.reshape(-1, 4, K, 1).unbind(1)
        area = (self.smallest + area * (self.largest - self.smallest)) * Gh * Gw
        aspect = torch.exp((2 * aspect - 1) * math.log(self.aspect))
        height = (area * aspect).sqrt().round().clamp(1, Gh)
        width = (area / aspect).sqrt().round().clamp(1, Gw)
        in_rows = _within(torch.arange(Gh, device=noise.device), (top * (Gh - height + 1)).floor(), height)
        in_columns = _within(torch.arange(Gw, device=noise.device), (left * (Gw - width + 1)).floor(), width)
        covered = (in_rows[:, :, :, None] & in_columns[:, :, None, :]).flatten(2)  # (B, K, L)
        turns = torch.arange(K, device=noise.device)[:, None]
        turn = torch.where(covered, turns, K).amin(dim=1)
        return MaskPlan.from_noise(K - turn + order, grid, self.ratio)

    def check(self, grid: tuple[int, int]) -> int:
        """Return V on this grid, or raise the ValueError that training would meet at its first step."""
        if self.smallest * grid[0] * grid[1] < 0.5:
            raise ValueError(
                f"masking.smallest={self.smallest} is less than half of one of the {grid[0]}x{grid[1]} patches: choose "
                f"{1 / (grid[0] * grid[1]):.2g} or more"
            )
        return visible_count(grid[0] * grid[1], self.ratio)

    def describe(self, grid: tuple[int, int]) -> str:
        """Return what a person reads in the summary of a run."""
        return f"{super().describe(grid)}, rectangles are hidden"


class GridMasking(MaskSampler):
    """Show one patch of each square, at the same place in all squares of an image (He et al. 2021, figure 6).

    Args:
        every: Side of the squares in patches; 2 hides three quarters, as the paper's.
    """

    def __init__(self, every: int = 2) -> None:
        if every < 2:
            raise ValueError(f"masking.every={every} hides nothing: choose 2 or more")
        self.every = every

    def numbers(self, grid: tuple[int, int]) -> tuple[int, ...]:
        """Return (1,): the place."""
        return (1,)

    def plan(self, noise: Tensor, grid: tuple[int, int]) -> MaskPlan:
        """Return the plan of this noise, of a batch."""
        rows, columns = (torch.arange(side, device=noise.device) % self.every for side in grid)
        places = (rows[:, None] * self.every + columns).flatten()
        hidden = places != (noise * self.every**2).floor()
        return MaskPlan.from_noise(hidden.float(), grid, 1 - 1 / self.every**2)

    def check(self, grid: tuple[int, int]) -> int:
        """Return V on this grid, or raise the ValueError that training would meet at its first step."""
        if grid[0] % self.every or grid[1] % self.every:
            fitting = [side for side in range(2, min(grid) + 1) if not (grid[0] % side or grid[1] % side)]
            remedy = f"choose one of {', '.join(map(str, fitting))}" if fitting else "choose masking=random"
            raise ValueError(
                f"masking.every={self.every} does not divide a grid of {grid[0]}x{grid[1]} patches: {remedy}"
            )
        return grid[0] * grid[1] // self.every**2

    def describe(self, grid: tuple[int, int]) -> str:
        """Return what a person reads in the summary of a run."""
        return f"{super().describe(grid)}, one of each {self.every}x{self.every}"


def _within(places: Tensor, first: Tensor, count: Tensor) -> Tensor:
    """Return which places (N,) lie among ``count`` (B, K, 1) from ``first`` on: (B, K, N)."""
    return (places >= first) & (places < first + count)
