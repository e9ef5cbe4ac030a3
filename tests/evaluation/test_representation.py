"""What is measured without labels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mae.data.loading.batches import Batch
from mae.evaluation.representation import feature_std, flat_patches, patch_figures, rankme, unit_patches
from mae.models.layers.patches import patchify


def orthonormal(rows: int, columns: int) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(rows, columns))[0]


def test_rankme_of_known_cases() -> None:
    assert rankme(torch.randn(50, 1) * torch.randn(1, 8)) == pytest.approx(1, abs=1e-3)
    assert rankme(orthonormal(50, 8)) == pytest.approx(8, rel=1e-4)
    # No more dimensions can be used than there are images.
    assert rankme(orthonormal(50, 8).T) == pytest.approx(8, rel=1e-4)


def test_rankme_is_the_exponential_of_the_entropy_of_the_singular_values() -> None:
    values = [4.0, 2.0, 1.0, 1.0]
    features = orthonormal(30, 4) @ torch.diag(torch.tensor(values)) @ orthonormal(4, 4)
    entropy = -sum(value / 8 * math.log(value / 8) for value in values)
    assert rankme(features) == pytest.approx(math.exp(entropy), rel=1e-4)
    assert rankme(1000 * features) == pytest.approx(rankme(features), rel=1e-5)


def test_rankme_is_of_the_features_as_they_are() -> None:
    # Centred, the same features would use all eight dimensions.
    assert rankme(torch.randn(500, 8) + 100) < 1.5


def test_features_that_are_all_alike_have_no_spread_and_even_ones_have_one() -> None:
    assert feature_std(torch.randn(1, 16).expand(40, 16)) == pytest.approx(0, abs=1e-6)
    spread = torch.randn(4000, 64)
    assert feature_std(spread) == pytest.approx(1, abs=0.02)
    # Lengths do not count, directions do.
    assert feature_std(spread * torch.rand(4000, 1).add(0.1)) == pytest.approx(feature_std(spread), abs=1e-6)


def board(low: int, high: int) -> torch.Tensor:
    """Return a chessboard (4, 4) of two grey levels, half a step apart in deviation for each step between them."""
    return torch.where((torch.arange(4).view(4, 1) + torch.arange(4)) % 2 == 0, low, high).to(torch.uint8)


def test_flat_is_what_varies_by_less_than_one_grey_level() -> None:
    image = torch.cat([torch.cat([board(9, 9), board(9, 10)], 1), torch.cat([board(9, 12), board(0, 255)], 1)])
    assert flat_patches(image.view(1, 1, 8, 8), 4).tolist() == [[True, True, False, False]]


def test_a_patch_of_one_colour_is_flat_and_one_busy_channel_is_enough_not_to_be() -> None:
    colour = torch.tensor([200, 100, 0], dtype=torch.uint8).view(3, 1, 1).expand(3, 4, 4)
    busy = colour.clone()
    busy[1] = board(100, 130)
    assert flat_patches(torch.stack([colour, busy]), 4).tolist() == [[True], [False]]


def test_figures_are_of_all_patches_and_the_loss_is_that_of_predicting_means() -> None:
    images = torch.randint(0, 256, (5, 2, 8, 8), dtype=torch.uint8)
    images[:, :, :, :4] = 77
    mean, std = torch.tensor([0.3, 0.3]).view(2, 1, 1), torch.tensor([0.2, 0.2]).view(2, 1, 1)
    batches = [Batch(part, torch.zeros(len(part)).long(), torch.arange(len(part))) for part in images.split(2)]
    figures = patch_figures(batches, 4, mean, std)

    scores = []
    pixels = (images.numpy() / 255 - 0.3) / 0.2
    for image in pixels:
        for top in (0, 4):
            for left in (0, 4):
                patch = image[:, top : top + 4, left : left + 4]
                scores.append(np.mean((patch - patch.mean()) ** 2) / (patch.var(ddof=1) + 1e-6))
    assert figures["flat_patches"] == 0.5
    assert figures["patch_mean_loss"] == pytest.approx(np.mean(scores), rel=1e-4)
    assert figures["patch_mean_loss"] == pytest.approx(0.5 * 31 / 32, rel=1e-3)


def test_patches_of_any_dtype_are_pixels_in_zero_to_one() -> None:
    pixels = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    batches = [Batch(part, torch.zeros(1), torch.zeros(1)) for part in (pixels, pixels / 255)]
    whole, floats = unit_patches(batches, 4)
    assert torch.equal(whole, patchify(pixels / 255, 4))
    assert torch.equal(floats, whole)
