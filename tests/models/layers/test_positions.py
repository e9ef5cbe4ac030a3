from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from mae.models.layers.positions import resample_positions, sincos_positions


@pytest.mark.parametrize("grid", [(3, 3), (2, 5)])
def test_sine_and_cosine_of_the_column_come_before_those_of_the_row(grid):
    table = sincos_positions(grid, 16)

    assert table.dtype == torch.float32
    assert table.shape == (1, grid[0] * grid[1], 16)
    for row in range(grid[0]):
        for column in range(grid[1]):
            found = table[0, row * grid[1] + column].tolist()
            for i in range(4):
                frequency = 1 / 10000 ** (i / 4)
                assert found[i] == pytest.approx(math.sin(column * frequency), abs=1e-6)
                assert found[4 + i] == pytest.approx(math.cos(column * frequency), abs=1e-6)
                assert found[8 + i] == pytest.approx(math.sin(row * frequency), abs=1e-6)
                assert found[12 + i] == pytest.approx(math.cos(row * frequency), abs=1e-6)


def test_class_and_register_rows_are_zero_and_the_patches_follow():
    table = sincos_positions((2, 3), 8, prefix=3)

    assert not table[:, :3].any()
    assert torch.equal(table[:, 3:], sincos_positions((2, 3), 8))


def test_a_width_that_four_does_not_divide_is_refused_with_one_that_it_does():
    with pytest.raises(ValueError, match="not 30: choose 32"):
        sincos_positions((2, 2), 30)


def ramps(grid: tuple[int, int]) -> torch.Tensor:
    """A table (1, L, 2) whose channels are the row and the column of the patch."""
    rows, columns = torch.meshgrid(*(torch.arange(float(side)) for side in grid), indexing="ij")
    return torch.stack([rows.flatten(), columns.flatten()], dim=1).unsqueeze(0)


def test_a_ramp_over_the_rows_stays_one_and_so_does_one_over_the_columns():
    rows, columns = resample_positions(ramps((6, 5)), (6, 5), (12, 15), 0).reshape(12, 15, 2).unbind(-1)

    assert torch.allclose(rows, rows[:, :1].expand(-1, 15), atol=1e-5)
    assert torch.allclose(columns, columns[:1].expand(12, -1), atol=1e-5)
    # Pixel centres coincide, so a row of twice as many lies at half the coordinate, away from the clamped border.
    middle = torch.arange(4, 8)
    assert torch.allclose(rows[middle, 0], (middle + 0.5) / 2 - 0.5, atol=1e-4)
    middle = torch.arange(6, 9)
    assert torch.allclose(columns[0, middle], (middle + 0.5) / 3 - 0.5, atol=1e-4)


def test_two_by_eight_becomes_four_by_four_although_both_have_sixteen_rows():
    rows, columns = resample_positions(ramps((2, 8)), (2, 8), (4, 4), 0).reshape(4, 4, 2).unbind(-1)

    assert torch.allclose(rows, rows[:, :1].expand(-1, 4), atol=1e-5)
    assert torch.allclose(columns, columns[:1].expand(4, -1), atol=1e-5)
    assert (rows[:, 0].diff() > 0).all()
    assert (columns[0].diff() > 1).all()
    # Resampling is symmetric about the middle of the old columns 0 to 7.
    assert torch.allclose(columns[0] + columns[0].flip(0), torch.full((4,), 7.0), atol=1e-4)


GRIDS = st.tuples(st.integers(1, 6), st.integers(1, 6))


@given(GRIDS, GRIDS, st.integers(0, 3), st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
def test_resampling_is_bicubic_antialiased_in_float32_and_leaves_class_and_register_rows(old, new, prefix, dtype):
    table = torch.randn(1, prefix + old[0] * old[1], 8).to(dtype)

    resampled = resample_positions(table, old, new, prefix)

    patches = table[:, prefix:]
    if old != new:
        maps = patches.float().reshape(1, *old, 8).permute(0, 3, 1, 2)
        maps = F.interpolate(maps, size=new, mode="bicubic", antialias=True, align_corners=False)
        patches = maps.permute(0, 2, 3, 1).reshape(1, new[0] * new[1], 8).to(dtype)
    assert torch.equal(resampled, torch.cat([table[:, :prefix], patches], dim=1))


def test_a_table_of_another_grid_is_refused():
    with pytest.raises(ValueError, match=r"17 rows is not one of 1 \+ 3x5 = 16"):
        resample_positions(torch.zeros(1, 17, 8), (3, 5), (4, 4), 1)
