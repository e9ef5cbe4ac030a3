"""Frozen features, and the kNN probe on top of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

import mae
from mae.data.datamodule import ImageData
from mae.data.loading.batches import Batch
from mae.data.sources.bundled import digits
from mae.data.splits import Splits
from mae.evaluation.frozen.features import extract_features, frozen, raw_pixels, whitened
from mae.evaluation.frozen.knn_probe import KnnProbe

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


@pytest.fixture(scope="module")
def data() -> ImageData:
    splits = digits()

    class NoTest:
        """A test split that may not be read."""

        classes, labels = splits.test.classes, splits.test.labels

        def __len__(self) -> int:
            return 360

        def image(self, index: int) -> torch.Tensor:
            raise AssertionError("the probe has read the test split")

    return ImageData(
        Splits(splits.train, splits.val, NoTest(), splits.origin),
        image_size=(8, 8),
        channels=1,
        effective_batch=64,
        micro_batch=64,
        min_scale=1,
        flip=False,
        num_workers=0,
        seed=0,
    )


def test_training_images_classify_validation_images(data: ImageData) -> None:
    mean, std = torch.full((1, 1, 1), 0.3), torch.full((1, 1, 1), 0.4)

    def pixels(split: object) -> np.ndarray:
        return (torch.stack([split.image(i) for i in range(len(split))]).flatten(1).double() / 255 - 0.3).numpy() / 0.4

    train, val = data.splits.train, data.splits.val
    judge = KNeighborsClassifier(20, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07))
    expected = judge.fit(pixels(train), train.labels).score(pixels(val), val.labels)
    # Rounding in float32 may turn one vote.
    assert KnnProbe(data).accuracy(raw_pixels, mean, std) == pytest.approx(expected, abs=1.5 / len(val))
    assert expected > 0.9


def test_the_bank_is_spread_over_the_classes(data: ImageData) -> None:
    seen: list[int] = []

    def count(images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        return images.flatten(1)

    KnnProbe(data, bank=100, queries=30).accuracy(count, torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
    assert sum(seen) == 130
