from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mae.masking.plan import MaskPlan, gather_patches, visible_count


def test_lowest_noise_stays_visible_in_order_of_noise():
    plan = MaskPlan.from_noise(torch.tensor([[0.9, 0.1, 0.5, 0.3], [0.2, 0.4, 0.8, 0.6]]), (2, 2), 0.5)

    assert plan.keep.tolist() == [[1, 3], [0, 1]]
    assert plan.masked.tolist() == [[2, 0], [3, 2]]
    assert plan.mask.tolist() == [[True, False, True, False], [False, False, True, True]]
    assert plan.grid == (2, 2)


@given(st.tuples(st.integers(1, 7), st.integers(2, 7)), st.floats(0, 1), st.integers(0, 2**31))
def test_keep_and_masked_partition_the_patches_and_the_lowest_noise_is_kept(grid, ratio, seed):
    length = grid[0] * grid[1]
    noise = torch.rand(3, length, generator=torch.Generator().manual_seed(seed))
    visible = math.floor(length * (1 - ratio) + 1e-6)
    if not 1 <= visible < length:
        with pytest.raises(ValueError, match=r"masking\.ratio=.* choose between"):
            MaskPlan.from_noise(noise, grid, ratio)
        return

    plan = MaskPlan.from_noise(noise, grid, ratio)

    assert plan.keep.shape == (3, visible) and plan.grid == grid
    together = torch.cat([plan.keep, plan.masked], dim=1)
    assert torch.equal(together.sort(dim=1).values, torch.arange(length).expand(3, -1))
    assert (noise.gather(1, together).diff(dim=1) >= 0).all()
    assert plan.mask.gather(1, plan.masked).all()
    assert not plan.mask.gather(1, plan.keep).any()
    assert (plan.keep.dtype, plan.masked.dtype, plan.mask.dtype) == (torch.int64, torch.int64, torch.bool)
    fill = torch.randn(2)
    patches = torch.randn(3, length, 2)
    hidden = plan.hide(patches, fill)
    assert torch.equal(hidden[plan.mask], fill.expand(int(plan.mask.sum()), -1))
    assert torch.equal(hidden[~plan.mask], patches[~plan.mask])


@pytest.mark.parametrize(
    ("patches", "ratio", "visible"),
    [
        (196, 0.75, 49),
        (16, 0.75, 4),
        (16, 0.6, 6),
        (196, 0.9, 19),
        (4, 0.5, 2),
        (16, 1 / 16, 15),
        # 10 * (1 - 0.9) is 0.9999999999999998 in floating point, and one patch is meant.
        (10, 0.9, 1),
        (100, 0.43, 57),
    ],
)
def test_visible_patches_are_the_floor_of_what_the_ratio_leaves(patches, ratio, visible):
    assert visible_count(patches, ratio) == visible


@pytest.mark.parametrize(
    ("ratio", "hidden"), [(0.0, "0 of 16"), (1.0, "16 of 16"), (0.95, "16 of 16"), (-0.5, "0 of 16"), (1.5, "16 of 16")]
)
def test_a_ratio_that_hides_all_or_no_patches_is_refused_by_name(ratio, hidden):
    with pytest.raises(ValueError, match=rf"masking\.ratio={ratio} hides {hidden} patches"):
        MaskPlan.from_noise(torch.rand(1, 16), (4, 4), ratio)


@pytest.mark.parametrize("shape", [(2, 15), (16,), (2, 4, 4)])
def test_noise_that_does_not_fit_the_grid_is_refused(shape):
    with pytest.raises(ValueError, match=r"does not fit a 4x4 grid: \(B, 16\) would"):
        MaskPlan.from_noise(torch.rand(shape), (4, 4), 0.75)


def test_equal_noise_keeps_the_order_of_the_patches():
    plan = MaskPlan.from_noise(torch.zeros(1, 400), (20, 20), 0.5)

    assert plan.keep[0].tolist() == list(range(200))
    assert plan.masked[0].tolist() == list(range(200, 400))


def test_gathering_follows_the_index_of_each_image():
    patches = torch.arange(2 * 5 * 3).reshape(2, 5, 3)
    index = torch.tensor([[4, 0], [1, 3]])

    gathered = gather_patches(patches, index)

    for image in range(2):
        for place in range(2):
            assert torch.equal(gathered[image, place], patches[image, index[image, place]])


def test_a_plan_cannot_be_changed():
    plan = MaskPlan.from_noise(torch.rand(1, 4), (2, 2), 0.5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.keep = plan.masked


def test_a_plan_moves_as_a_whole():
    plan = MaskPlan.from_noise(torch.rand(1, 4), (2, 2), 0.5).to("meta")

    assert {plan.keep.device.type, plan.masked.device.type, plan.mask.device.type} == {"meta"}
    assert plan.grid == (2, 2)
