"""Samplers draw MaskPlans from a generator; the model never draws its own mask."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mae.components.registry import Registry
from mae.masking.corruption import CorruptionPlan
from mae.masking.plan import MaskPlan, visible_count


class MaskSampler(ABC):
    """Draws which patches are hidden: all chance first, as numbers, then the plans as a function of these.

    A sampler of one's own says how its ``plan`` follows from the noise, in ``check`` how many patches stay visible, which must be
    the same number for every image, and in ``noise`` how much chance it takes, where that is not one number a patch.

    Attributes:
        hides: What an objective must expect: ``patches`` that the encoder does not see, or ``embeddings`` among all that it sees.
        config: What it was made from, where a registry made it.
    """

    hides: ClassVar[Literal["patches", "embeddings"]] = "patches"
    config: dict[str, object]

    def __call__(self, batch: int, grid: tuple[int, int], generator: torch.Generator) -> MaskPlan:
        """Return a plan for ``batch`` images."""
        return self.plan(self.noise(batch, grid, generator), grid)

    def noise(self, batch: int, grid: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Return all the chance that ``batch`` plans are made of: (batch, ...), here (batch, L) float32."""
        return self._rand(batch, grid[0] * grid[1], generator=generator)

    @abstractmethod
    def plan(self, noise: Tensor, grid: tuple[int, int]) -> MaskPlan:
        """Return the plan of this noise, of a batch."""

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

    @staticmethod
    def _rand(*shape: int, generator: torch.Generator) -> Tensor:
        # float32 whatever the precision of the run: in bf16 every batch of 196 patches would hold ties.
        return torch.rand(*shape, generator=generator, device=generator.device, dtype=torch.float32)


class RandomMasking(MaskSampler):
    """Hide a uniformly random share of the patches of each image (He et al. 2021, section 3).

    Args:
        ratio: Share of the patches to hide; the paper's is 0.75.
    """

    def __init__(self, ratio: float = 0.75) -> None:
        if not 0 < ratio < 1:
            raise ValueError(
                f"masking.ratio={ratio} hides all or no patches: choose a number between 0 and 1, such as 0.75"
            )
        self.ratio = ratio

    def plan(self, noise: Tensor, grid: tuple[int, int]) -> MaskPlan:
        """Return the plan of this noise, of a batch."""
        return MaskPlan.from_noise(noise, grid, self.ratio)

    def describe(self, grid: tuple[int, int]) -> str:
        """Return what a person reads in the summary of a run."""
        return f"{self.ratio:.0%}: the encoder sees {self.check(grid)} of {grid[0] * grid[1]} patches"

    def check(self, grid: tuple[int, int]) -> int:
        """Return V on this grid, or raise the ValueError that training would meet at its first step."""
        return visible_count(grid[0] * grid[1], self.ratio)


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

    def noise(self, batch: int, grid: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Return all the chance that ``batch`` plans are made of: (batch, 3, L) float32."""
        return self._rand(batch, 3, grid[0] * grid[1], generator=generator)

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
    },
)
