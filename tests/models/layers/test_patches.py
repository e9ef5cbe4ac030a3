from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mae.models.layers.patches import as_pair, patch_grid, patchify, unpatchify

SIDES = st.integers(1, 4)


@given(SIDES, SIDES, SIDES, SIDES)
def test_a_patch_is_laid_out_by_row_column_and_channel_and_goes_back(P, Gh, Gw, C):
    images = torch.randn(2, C, Gh * P, Gw * P)

    patches = patchify(images, P)

    assert patches.shape == (2, Gh * Gw, P * P * C)
    for patch in range(Gh * Gw):
        top, left = patch // Gw * P, patch % Gw * P
        pixels = images[:, :, top : top + P, left : left + P]
        expected = [pixels[:, c, row, column] for row in range(P) for column in range(P) for c in range(C)]
        assert torch.equal(patches[:, patch], torch.stack(expected, dim=1))
    assert torch.equal(unpatchify(patches, (Gh, Gw), P), images)


@pytest.mark.parametrize(("size", "near"), [((18, 16), "16x16"), ((16, 23), "16x24"), ((3, 16), "4x16")])
def test_an_image_that_patches_do_not_fill_is_refused_with_a_size_that_fits(size, near):
    with pytest.raises(
        ValueError, match=rf"image_size {size[0]}x{size[1]} is not divisible by the patch size 4: {near}"
    ):
        patch_grid(size, 4)


def test_patches_that_do_not_fill_the_grid_are_refused():
    with pytest.raises(ValueError, match="6 patches do not fill a 2x4 grid"):
        unpatchify(torch.zeros(1, 6, 12), (2, 4), 2)


def test_one_side_stands_for_a_square_and_a_pair_is_height_by_width():
    assert as_pair(16) == (16, 16)
    assert as_pair([8, 32]) == (8, 32)
    assert patch_grid((8, 32), 4) == (2, 8)
