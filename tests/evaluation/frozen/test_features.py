"""Frozen features, and the kNN probe on top of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

import mae
from mae.data.loading.batches import Batch
from mae.evaluation.frozen.features import extract_features, frozen, raw_pixels, whitened

Build = Callable[..., mae.MaskedAutoencoder]


def test_features_are_the_mean_of_all_patch_tokens(tiny_autoencoder: Build) -> None:
    encoder = tiny_autoencoder(scattered=True).encoder.eval()
    images = torch.randn(3, 3, 16, 16)
    tokens = encoder(images)
    assert torch.allclose(frozen(encoder)(images), tokens[:, 1:].mean(1), atol=1e-6)
    assert torch.allclose(frozen(encoder, "token")(images), tokens[:, 0], atol=1e-6)


def test_features_are_deterministic_and_leave_the_mode_alone(tiny_autoencoder: Build) -> None:
    # Stochastic depth would make two measurements of one encoder differ; a mode that sticks would end its training.
    encoder = tiny_autoencoder(drop_path=0.9).encoder.train()
    images = torch.randn(3, 3, 16, 16)
    assert torch.equal(frozen(encoder)(images), frozen(encoder)(images))
    assert encoder.training
    assert encoder.vit.blocks[0].training


def test_a_whole_source_is_standardised_and_kept_in_order() -> None:
    images = torch.randint(0, 256, (7, 3, 4, 4), dtype=torch.uint8)
    labels = torch.arange(7)
    mean, std = torch.rand(2, 3, 1, 1) + 0.1
    batches = [Batch(images[i : i + 3], labels[i : i + 3], labels[i : i + 3]) for i in (0, 3, 6)]
    features, found = extract_features(batches, lambda batch: batch.flatten(1), mean, std)
    expected = (images.numpy() / 255 - mean.numpy()) / std.numpy()
    assert np.allclose(features.numpy(), expected.reshape(7, -1), atol=1e-5)
    assert features.dtype == torch.float32
    assert torch.equal(found, labels)


def test_no_graph_is_kept(tiny_autoencoder: Build) -> None:
    encoder = tiny_autoencoder().encoder
    batch = Batch(torch.zeros(2, 3, 16, 16, dtype=torch.uint8), torch.zeros(2).long(), torch.arange(2))
    features, _ = extract_features([batch], frozen(encoder), torch.zeros(3, 1, 1), torch.ones(3, 1, 1))
    assert not features.requires_grad


def test_raw_pixels_are_the_pixels_of_small_images_and_shrink_large_ones() -> None:
    small = torch.randn(2, 3, 16, 24)
    assert torch.equal(raw_pixels(small), small.reshape(2, -1))
    assert raw_pixels(torch.randn(2, 3, 64, 64)).shape == (2, 3 * 32 * 32)


def test_wide_features_are_whitened_along_their_largest_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mae.evaluation.frozen.features.MOST_DIRECTIONS", 3)
    train, other = torch.randn(100, 3) @ torch.randn(3, 40), torch.randn(5, 40)
    before = torch.get_rng_state()
    white, rest = whitened(train, other)
    assert torch.equal(torch.get_rng_state(), before)
    assert (white.shape, rest.shape) == ((100, 3), (5, 3))
    torch.testing.assert_close(torch.cov(white.T), torch.eye(3), atol=0.1, rtol=0)


def test_a_single_image_has_nothing_to_be_whitened_by() -> None:
    one, other = torch.randn(1, 4), torch.randn(3, 4)
    assert all(map(torch.equal, whitened(one, other), (one, other)))
