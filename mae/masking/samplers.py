"""Samplers draw MaskPlans, from a generator or for images by their keys; the model never draws its own mask."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mae.components.registry import Registry
from mae.masking.corruption import CorruptionPlan
from mae.masking.noise import uniform
from mae.masking.plan import MaskPlan, check_ratio, visible_count


class MaskSampler(ABC):
    """Draws which patches are hidden: all chance first, as numbers, then the plans as a function of these.

    A sampler of one's own says how its ``plan`` follows from the noise, in ``check`` how many patches stay visible, which must be
    the same number for every image, and in ``numbers`` how much chance an image takes, where that is not one number a patch.

    Attributes:
        hides: What an objective must expect: ``patches`` that the encoder does not see, or ``embeddings`` among all that it sees.
        config: What it was made from, where a registry made it.
    """

    hides: ClassVar[Literal["patches", "embeddings"]] = "patches"
    config: dict[str, object]

    def __call__(self, batch: int, grid: tuple[int, int], generator: torch.Generator) -> MaskPlan:
        """Return a plan for ``batch`` images, from a generator."""
        # float32 whatever the precision of the run: in bf16 every batch of 196 patches would hold ties.
        shape = (batch, self._drawn(grid))
        return self._plan(torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float32), grid)

    def of_images(self, keys: Tensor, grid: tuple[int, int], weights: Tensor | None = None) -> MaskPlan:
        """Return a plan in which the mask of each image is a function of its key (B,) alone, see ``noise.image_keys``.

        Args:
            keys: (B,).
            grid: (Gh, Gw).
            weights: (B, L) in [0, 1], the share of each patch that is there, where images lack pixels.
        """
        return self._plan(uniform(keys, self._drawn(grid)), grid, weights)

    def _drawn(self, grid: tuple[int, int]) -> int:
        """Return how many numbers an image takes: those of its plan, then one a patch for the order of the hidden ones."""
        return math.prod(self.numbers(grid)) + grid[0] * grid[1]

    def _plan(self, drawn: Tensor, grid: tuple[int, int], weights: Tensor | None = None) -> MaskPlan:
        """Return the plan, with the hidden patches in an order of no meaning, so that the first of them are a random part."""
        shape = self.numbers(grid)
        count = math.prod(shape)
        noise = drawn[:, :count].reshape(-1, *shape)
        plan = self.plan(noise, grid) if weights is None else self.weighted_plan(noise, grid, weights)
        return plan.shuffled(drawn[:, count:])

    def numbers(self, grid: tuple[int, int]) -> tuple[int, ...]:
        """Return the shape of the uniform numbers that the plan of an image is made of, here (L,)."""
        return (grid[0] * grid[1],)

    @abstractmethod
    def plan(self, noise: Tensor, grid: tuple[int, int]) -> MaskPlan:
        """Return the plan of noise (B, *numbers); the hidden patches are put into a random order afterwards."""

    def weighted_plan(self, noise: Tensor, grid: tuple[int, int], weights: Tensor) -> MaskPlan:
        """Return the plan of images of which some patches are not there, see ``of_images``; here they are as good as others."""
        return self.plan(noise, grid)

    @abstractmethod
    def check(self, grid: tuple[int, int]) -> int:
        """Return V on this grid, or raise the ValueError that training would meet at its first step."""

    def seen(self, grid: tuple[int, int]) -> int:
        """Return how many patches of an image the encoder works on, which is what a step costs."""
        return self.check(grid)

    def describe(self, grid: tuple[int, int]) -> str:
        """Return what a person reads in the summary of a run."""
        visible, L = self.check(grid), grid[0] * grid[1]
        return f"{1 - visible / L:.0%}: the encoder sees {visible} of {L} patches"


class RandomMasking(MaskSampler):
    """Hide a uniformly random share of the patches of each image (He et al. 2021, section 3).

    Args:
        ratio: Share of the patches to hide; the paper's is 0.75.
        block: Side, in patches, of the squares that are hidden or seen whole; the paper's is 1, Pixio's 4 (arXiv 2512.15715).
    """

    def __init__(self, ratio: float = 0.75, block: int = 1) -> None:
        check_ratio(ratio)
        if block < 1:
            raise ValueError(f"masking.block={block} is no side of a square of patches: choose 1 or more")
        self.ratio = ratio
        self.block = block

    def numbers(self, grid: tuple[int, int]) -> tuple[int, ...]:
        """Return how many squares there are."""
        return (grid[0] // self.block * (grid[1] // self.block),)

    def plan(self, noise: Tensor, grid: tuple[int, int]) -> MaskPlan:
        """Return the plan of this noise, of a batch."""
        visible = self.check(grid)
        if self.block > 1:
            squares = noise.reshape(-1, grid[0] // self.block, grid[1] // self.block)
            noise = squares.repeat_interleave(self.block, 1).repeat_interleave(self.block, 2).flatten(1)
        return MaskPlan.from_noise(noise, grid, 1 - visible / (grid[0] * grid[1]))

    def check(self, grid: tuple[int, int]) -> int:
        """Return V on this grid, or raise the ValueError that training would meet at its first step."""
        if grid[0] % self.block or grid[1] % self.block:
            fitting = [side for side in range(1, min(grid) + 1) if not (grid[0] % side or grid[1] % side)]
            raise ValueError(
                f"masking.block={self.block} does not divide a grid of {grid[0]}x{grid[1]} patches: choose one of "
                f"{', '.join(map(str, fitting))}"
            )
        squares = grid[0] // self.block * (grid[1] // self.block)
        what = "patches" if self.block == 1 else f"squares of {self.block}x{self.block} patches"
        return visible_count(squares, self.ratio, what) * self.block**2

    def describe(self, grid: tuple[int, int]) -> str:
        """Return what a person reads in the summary of a run."""
        squares = f", squares of {self.block}x{self.block} are hidden" if self.block > 1 else ""
        return super().describe(grid) + squares


class RandomCorruption(RandomMasking):
    """Corrupt the embeddings of a uniformly random share of the patches, see ``CorruptionPlan``.

    Args:
        ratio: Share of the patches that are corrupted; the paper's is 0.5.
        masked: Share of these that become the mask embedding.
        swapped: Share of these that become another patch's embedding; the others stay as they are.
    """

    hides = "embeddings"

    def __init__(self, ratio: float = 0.5, masked: float = 0.8, swapped: float = 0.1) -> None:
        super().__init__(ratio)
        if not (masked >= 0 and swapped >= 0 and masked + swapped <= 1):
            raise ValueError(
                f"masking.masked={masked} and masking.swapped={swapped} are no shares of the corrupted patches: choose two that "
                f"add up to 1 at most, such as 0.8 and 0.1"
            )
        self.masked = masked
        self.swapped = swapped

    def numbers(self, grid: tuple[int, int]) -> tuple[int, ...]:
        """Return (3, L): which are corrupted, how, and what stands in."""
        return 3, grid[0] * grid[1]

    def plan(self, noise: Tensor, grid: tuple[int, int]) -> CorruptionPlan:
        """Return the plan of this noise, of a batch."""
        return CorruptionPlan.draw(noise, grid, self.ratio, self.masked, self.swapped)

    def seen(self, grid: tuple[int, int]) -> int:
        """Return L: the encoder sees every patch."""
        return grid[0] * grid[1]

    def describe(self, grid: tuple[int, int]) -> str:
        """Return what a person reads in the summary of a run."""
        kept = 1 - self.masked - self.swapped
        return (
            f"{self.ratio:.0%} of {grid[0] * grid[1]} patch embeddings corrupted: {self.masked:.0%} masked, {self.swapped:.0%} "
            f"another patch's, {kept:.0%} kept; the encoder sees every patch"
        )


MASKINGS = Registry(
    "masking",
    MaskSampler,  # type: ignore[type-abstract]
    {
        "random": "mae.masking.samplers.RandomMasking",
        "corruption": "mae.masking.samplers.RandomCorruption",
        "block": "mae.masking.shapes.BlockMasking",
        "grid": "mae.masking.shapes.GridMasking",
        "weighted": "mae.masking.weighted.WeightedMasking",
    },
)
