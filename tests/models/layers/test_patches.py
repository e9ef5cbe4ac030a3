from __future__ import annotations

import pytest
import torch

from mae.models.layers.patches import as_pair, patch_grid, patchify, unpatchify


def test_a_patch_is_laid_out_by_row_column_and_channel():
    images = torch.randn(2, 3, 4, 6)

    patches = patchify(images, 2)

    assert patches.shape == (2, 6, 12)
    for image in range(2):
        for patch in range(6):
            top, left = patch // 3 * 2, patch % 3 * 2
            expected = [
                images[image, c, top + row, left + col] for row in range(2) for col in range(2) for c in range(3)
            ]
            assert patches[image, patch].tolist() == [value.item() for value in expected]


@pytest.mark.parametrize(("channels", "size"), [(1, (8, 8)), (3, (8, 12)), (4, (12, 4))])
def test_unpatchify_undoes_patchify(channels, size):
    images = torch.randn(2, channels, *size)
    grid = (size[0] // 4, size[1] // 4)

    assert torch.equal(unpatchify(patchify(images, 4), grid, 4), images)

    patches = torch.randn(2, grid[0] * grid[1], 16 * channels)
    assert torch.equal(patchify(unpatchify(patches, grid, 4), 4), patches)


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
