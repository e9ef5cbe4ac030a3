"""Masks that follow what is there of an image."""

from __future__ import annotations

import math

import pytest
import torch

from mae.masking.noise import image_keys
from mae.masking.plan import MaskPlan
from mae.masking.samplers import RandomMasking
from mae.masking.weighted import WeightedMasking

GRID = (6, 8)
KEYS = image_keys(7, torch.arange(200))


def weights(count: int, seed: int = 0) -> torch.Tensor:
    """Return shares (200, 48), of which ``count`` a row are above zero."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(200, 48, generator=generator).argsort(dim=1)[:, :count]
    return torch.zeros(200, 48).scatter(1, places, 0.05 + 0.95 * torch.rand(200, count, generator=generator))


def test_where_all_is_there_it_is_random_masking() -> None:
    ours, theirs = WeightedMasking(0.7), RandomMasking(0.7)
    for shares in (None, torch.ones(200, 48), torch.full((200, 48), 0.3)):
        one, other = ours.of_images(KEYS, GRID, shares), theirs.of_images(KEYS, GRID)
        assert all(torch.equal(getattr(one, part), getattr(other, part)) for part in ("keep", "masked", "mask"))


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.75, 0.9])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 24, 47, 48])
def test_the_same_share_of_what_is_there_is_hidden_and_one_patch_stays(ratio: float, count: int) -> None:
    shares = weights(count)
    plan = WeightedMasking(ratio).of_images(KEYS, GRID, shares)
    visible = RandomMasking(ratio).check(GRID)
    assert plan.keep.shape == (200, visible)
    together = torch.cat([plan.keep, plan.masked], dim=1).sort(dim=1).values
    assert torch.equal(together, torch.arange(48).expand(200, -1))
    assert torch.equal(plan.mask, torch.zeros(200, 48, dtype=torch.bool).scatter(1, plan.masked, True))
    seen = (shares.gather(1, plan.keep) > 0).sum(dim=1)
    expected = min(count, max(1, math.floor(count * (1 - ratio) + 1e-6)))
    assert (seen == expected).all()


def test_patches_are_hidden_in_proportion_to_what_they_hold() -> None:
    # One of two patches is hidden at a time: the fuller one with probability w / (w + v).
    shares = torch.zeros(20_000, 4)
    shares[:, 1], shares[:, 2] = 0.9, 0.3
    plan = WeightedMasking(0.5).of_images(image_keys(1, torch.arange(20_000)), (2, 2), shares)
    assert (plan.mask[:, 1] ^ plan.mask[:, 2]).all()
    assert plan.mask[:, 1].float().mean().item() == pytest.approx(0.75, abs=0.01)


def test_a_loop_over_patches_agrees() -> None:
    shares, noise = weights(20), torch.rand(200, 48, generator=torch.Generator().manual_seed(3))
    plan = WeightedMasking(0.75).weighted_plan(noise, GRID, shares)
    for row in range(200):
        there = [patch for patch in range(48) if shares[row, patch] > 0]
        there.sort(key=lambda patch: -math.log(noise[row, patch].item()) / shares[row, patch].item())
        hidden, seen = there[: len(there) - 5], there[len(there) - 5 :]
        empty = sorted(
            (patch for patch in range(48) if shares[row, patch] == 0), key=lambda patch: noise[row, patch].item()
        )
        assert plan.keep[row].tolist() == [*reversed(seen), *empty[:7]]
        assert plan.masked[row].tolist() == [*empty[7:], *reversed(hidden)]


def test_other_maskings_pass_over_it() -> None:
    one, other = (RandomMasking(0.75).of_images(KEYS, GRID, shares) for shares in (None, weights(20)))
    assert isinstance(one, MaskPlan) and torch.equal(one.keep, other.keep)
