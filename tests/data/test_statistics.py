"""Pixel statistics against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mae.data.statistics import measure_pixels, standardize, unstandardize
from tests.data.drawing import smooth


def test_mean_and_deviation_equal_numpys_over_all_pixels() -> None:
    # Images of different sizes: every pixel counts once, not every image.
    arrays = [smooth(6, 9, seed=0), smooth(20, 5, seed=1), smooth(3, 3, seed=2)]
    mean, std = measure_pixels(torch.from_numpy(array).permute(2, 0, 1) for array in arrays)
    pixels = np.concatenate([array.reshape(-1, 3) for array in arrays]) / 255
    assert mean == pytest.approx(pixels.mean(axis=0), abs=1e-6)
    assert std == pytest.approx(pixels.std(axis=0), abs=1e-6)
    assert all(type(value) is float for value in (*mean, *std))


def test_standardised_pixels_have_mean_zero_and_deviation_one_and_come_back() -> None:
    images = torch.from_numpy(np.stack([smooth(8, 8, seed=seed) for seed in range(6)])).permute(0, 3, 1, 2)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in measure_pixels(images))
    standard = standardize(images, mean, std)
    assert standard.dtype == torch.float32
    assert standard.mean(dim=(0, 2, 3)) == pytest.approx(torch.zeros(3), abs=1e-4)
    assert standard.std(dim=(0, 2, 3), correction=0) == pytest.approx(torch.ones(3), abs=1e-4)
    assert torch.equal((unstandardize(standard, mean, std) * 255).round().to(torch.uint8), images)


def test_images_of_one_flat_colour_are_refused() -> None:
    with pytest.raises(ValueError, match="one flat colour"):
        measure_pixels([torch.full((3, 4, 4), 7, dtype=torch.uint8)] * 2)
    with pytest.raises(ValueError, match="no image"):
        measure_pixels([])


def test_a_channel_that_never_changes_divides_by_no_zero() -> None:
    image = torch.from_numpy(smooth(5, 5)).permute(2, 0, 1).clone()
    image[2] = 0
    assert min(measure_pixels([image])[1]) > 0
