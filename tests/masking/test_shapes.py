from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mae.masking.noise import image_keys, uniform
from mae.masking.plan import MaskPlan
from mae.masking.samplers import MaskSampler, RandomCorruption, RandomMasking
from mae.masking.shapes import BlockMasking, GridMasking
from tests.outside import ColumnMasking


def plan_of(sampler: MaskSampler, grid: tuple[int, int], images: int = 40) -> MaskPlan:
    return sampler.of_images(image_keys(0, torch.arange(images)), grid)


def assert_partition(plan: MaskPlan, visible: int) -> None:
    L = plan.grid[0] * plan.grid[1]
    assert plan.keep.shape[1] == visible
    assert torch.equal(
        torch.cat([plan.keep, plan.masked], dim=1).sort(dim=1).values, torch.arange(L).expand(len(plan.mask), -1)
    )
    assert torch.equal(plan.mask.nonzero()[:, 1].view(len(plan.mask), -1), plan.masked.sort(dim=1).values)


@pytest.mark.parametrize(("grid", "block", "visible"), [((16, 16), 4, 64), ((8, 12), 4, 16), ((8, 8), 2, 16)])
def test_squares_are_hidden_or_seen_whole(grid: tuple[int, int], block: int, visible: int) -> None:
    sampler = RandomMasking(0.75, block=block)
    plan = plan_of(sampler, grid)
    assert_partition(plan, visible)
    assert sampler.check(grid) == visible
    squares = plan.mask.view(-1, grid[0] // block, block, grid[1] // block, block)
    hidden = squares.sum(dim=(2, 4))
    assert set(hidden.unique().tolist()) == {0, block**2}


def test_squares_of_one_patch_are_the_paper_s_masking() -> None:
    noise = torch.rand(5, 64)
    assert torch.equal(RandomMasking(0.75).plan(noise, (8, 8)).keep, MaskPlan.from_noise(noise, (8, 8), 0.75).keep)


def rectangles_one_by_one(noise: Tensor, sampler: BlockMasking, grid: tuple[int, int]) -> np.ndarray:
    """Hide rectangles until the share is reached, in loops; of the last one the patches of largest number."""
    (Gh, Gw), K = grid, sampler.rectangles
    drawn, order = noise[: 4 * K].view(4, K).double(), noise[4 * K :].view(Gh, Gw)
    hidden = np.zeros(grid, dtype=bool)
    wanted = Gh * Gw - math.floor(Gh * Gw * (1 - sampler.ratio) + 1e-6)
    for k in range(K + 1):
        if k < K:
            area = (sampler.smallest + float(drawn[0, k]) * (sampler.largest - sampler.smallest)) * Gh * Gw
            aspect = math.exp((2 * float(drawn[1, k]) - 1) * math.log(sampler.aspect))
            height = min(max(round(math.sqrt(area * aspect)), 1), Gh)
            width = min(max(round(math.sqrt(area / aspect)), 1), Gw)
            top, left = int(float(drawn[2, k]) * (Gh - height + 1)), int(float(drawn[3, k]) * (Gw - width + 1))
            places = [(r, c) for r in range(top, top + height) for c in range(left, left + width)]
        else:  # what no rectangle reached
            places = [(r, c) for r in range(Gh) for c in range(Gw)]
        new = sorted((place for place in places if not hidden[place]), key=lambda place: -float(order[place]))
        for place in new[: wanted - hidden.sum()]:
            hidden[place] = True
    return hidden


@pytest.mark.parametrize(
    ("sampler", "grid"),
    [
        (BlockMasking(), (14, 14)),
        (BlockMasking(0.4, smallest=16 / 196, largest=0.38), (14, 14)),
        (BlockMasking(0.75, smallest=0.15, largest=0.2, aspect=0.75), (8, 12)),
        (BlockMasking(0.9, smallest=0.04, largest=0.04), (4, 4)),
    ],
)
def test_rectangles_are_those_of_a_loop_that_places_one_after_the_other(
    sampler: BlockMasking, grid: tuple[int, int]
) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(30, *sampler.numbers(grid), generator=generator)
    plan = sampler.plan(noise, grid)
    assert_partition(plan, sampler.check(grid))
    for row, mask in zip(noise, plan.mask, strict=True):
        assert np.array_equal(mask.view(grid).numpy(), rectangles_one_by_one(row, sampler, grid))


def test_rectangles_hang_together_more_than_random_patches_do() -> None:
    def neighbours(sampler: MaskSampler) -> float:
        mask = plan_of(sampler, (14, 14)).mask.view(-1, 14, 14)
        return float((mask[:, 1:] == mask[:, :-1]).float().mean())

    assert neighbours(BlockMasking(0.5)) > 0.8 > 0.6 > neighbours(RandomMasking(0.5))


def test_of_each_square_one_patch_is_seen_at_the_same_place() -> None:
    plan = plan_of(GridMasking(2), (8, 6))
    assert_partition(plan, 12)
    seen = ~plan.mask.view(-1, 4, 2, 3, 2)
    first = seen[:, :1, :, :1]
    assert torch.equal(seen, first.expand_as(seen))
    assert torch.equal(first.sum(dim=(1, 2, 3, 4)), torch.ones(40, dtype=torch.int64))
    assert first[:, 0, :, 0].float().mean(dim=0).flatten().tolist() == pytest.approx([0.25] * 4, abs=0.2)


@pytest.mark.parametrize(
    ("make", "grid", "message"),
    [
        (lambda: RandomMasking(0.75, block=4), (14, 14), r"masking\.block=4 does not divide a grid of 14x14 patches: choose one of 1, 2, 7, 14$"),  # noqa: E501
        (lambda: RandomMasking(0.75, block=4), (4, 4), r"masking\.ratio=0\.75 hides 1 of 1 squares of 4x4 patches"),
        (lambda: RandomMasking(0.75, block=0), (4, 4), r"masking\.block=0 is no side of a square of patches: choose 1 or more"),
        (lambda: BlockMasking(1.0), (4, 4), r"masking\.ratio=1\.0 hides all or no patches"),
        (lambda: BlockMasking(0.99), (4, 4), r"masking\.ratio=0\.99 hides 16 of 16 patches"),
        (lambda: BlockMasking(smallest=0.5), (4, 4), r"masking\.smallest=0\.5 and masking\.largest=0\.4 are no shares .* such as 0\.08 and 0\.4$"),  # noqa: E501
        (lambda: BlockMasking(smallest=0.001), (4, 4), r"masking\.smallest=0\.001 is less than half of one of the 4x4 patches: choose 0\.062 or more$"),  # noqa: E501
        (lambda: BlockMasking(aspect=2), (4, 4), r"masking\.aspect=2 is not the flattest side ratio: .* such as 0\.3$"),
        (lambda: GridMasking(1), (4, 4), r"masking\.every=1 hides nothing: choose 2 or more"),
        (lambda: GridMasking(4), (14, 14), r"masking\.every=4 does not divide a grid of 14x14 patches: choose one of 2, 7, 14$"),
        (lambda: GridMasking(2), (7, 6), r"masking\.every=2 does not divide a grid of 7x6 patches: choose masking=random$"),
    ],
)  # fmt: skip
def test_shapes_that_a_grid_cannot_hold_are_refused_in_one_line(make, grid, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message) as refused:
        make().check(grid)
    assert "\n" not in str(refused.value)


def test_samplers_say_what_they_hide() -> None:
    assert RandomMasking(0.75, block=4).describe((16, 16)) == (
        "75%: the encoder sees 64 of 256 patches, squares of 4x4 are hidden"
    )
    assert BlockMasking().describe((14, 14)) == "50%: the encoder sees 98 of 196 patches, rectangles are hidden"
    assert GridMasking().describe((8, 8)) == "75%: the encoder sees 16 of 64 patches, one of each 2x2"


@pytest.mark.parametrize(
    "sampler",
    [RandomMasking(), RandomMasking(block=2), BlockMasking(), GridMasking(), ColumnMasking(2), RandomCorruption()],
)
def test_hidden_patches_come_in_an_order_of_no_meaning(sampler: MaskSampler) -> None:
    plan = plan_of(sampler, (8, 8), images=2000)
    if isinstance(sampler, BlockMasking):  # those of the rectangle that was cut come no later than others
        first = sampler.plan(uniform(image_keys(0, torch.arange(2000)), *sampler.numbers((8, 8))), (8, 8)).masked[:, 0]
        often = [
            float((plan.masked[:, part] == first[:, None]).any(1).double().mean())
            for part in (slice(16), slice(16, 32))
        ]
        assert often == pytest.approx([0.5, 0.5], abs=0.05)
    assert type(plan) is type(sampler.plan(torch.rand(1, *sampler.numbers((8, 8))), (8, 8)))
    rows = plan.masked // 8
    half = plan.masked.shape[1] // 2
    assert float(rows[:, :half].double().mean()) == pytest.approx(float(rows[:, half:].double().mean()), abs=0.1)
    together = (rows[:, 0] == rows[:, 1]).double().mean()  # neighbours of the order are no neighbours of the image
    apart = (rows[:, 0] == rows[:, -1]).double().mean()
    assert float(together) == pytest.approx(float(apart), abs=0.05)
