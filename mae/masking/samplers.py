"""Samplers draw MaskPlans from a generator; the model never draws its own mask."""

from __future__ import annotations

import numpy as np
import torch

from mae.masking.plan import MaskPlan, visible_count


class RandomMasking:
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

    def __call__(self, batch: int, grid: tuple[int, int], generator: torch.Generator) -> MaskPlan:
        """Return a plan for ``batch`` images: (batch, L) float32 noise, ranked."""
        # float32 whatever the precision of the run: in bf16 every batch of 196 patches would hold ties.
        noise = torch.rand(batch, grid[0] * grid[1], generator=generator, device=generator.device, dtype=torch.float32)
        return MaskPlan.from_noise(noise, grid, self.ratio)

    def check(self, grid: tuple[int, int]) -> int:
        """Return V on this grid, or raise the ValueError that training would meet at its first step."""
        return visible_count(grid[0] * grid[1], self.ratio)


SAMPLERS: dict[str, type[RandomMasking]] = {"random": RandomMasking}


def create_sampler(name: str, **options: float) -> RandomMasking:
    """Return a sampler by name.

    Raises:
        ValueError: No sampler has this name, or the options are out of range.
    """
    if name not in SAMPLERS:
        raise ValueError(f"masking.name={name!r} is not a mask sampler: choose one of {', '.join(sorted(SAMPLERS))}")
    return SAMPLERS[name](**options)


def derive_seed(*key: int) -> int:
    """Return a seed that is a function of the key alone, such as (seed, rank, epoch, batch).

    Neighbouring keys give unrelated streams (numpy's SeedSequence mixes them), so ranks differ, and a resumed run
    repeats exactly what it would have drawn. Keys that differ in trailing zeros alone are the same to it: keys of
    different purposes begin with different numbers.
    """
    (state,) = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return int(state) >> 1  # torch takes a signed 64-bit seed


def seeded_generator(device: torch.device | str, *key: int) -> torch.Generator:
    """Return a generator whose stream is a function of the key alone."""
    return torch.Generator(device).manual_seed(derive_seed(*key))
