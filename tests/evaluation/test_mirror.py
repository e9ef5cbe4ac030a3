"""Flips are for images that lose nothing by them: what is told without labels, and what only labels tell."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from mae.data.reading.decode import Picture, TensorPicture
from mae.data.source import Source, Subset
from mae.evaluation.mirror import LEAST_IMAGES, Mirroring, look_at_mirrored


class Drawn(Source):
    """Images (N, C, H, W) in memory."""

    in_memory = True

    def __init__(self, images: Tensor, labels: np.ndarray | None = None) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def open(self, index: int) -> Picture:
        return TensorPicture(self.images[index])

    def name(self, index: int) -> str:
        return str(index)


def noise(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 60, (count, 1, 20, 20), generator=generator, dtype=torch.uint8)


def arrows(count: int) -> tuple[Tensor, np.ndarray]:
    """Half point to the left and half to the right: together they are their own mirror image."""
    images, labels = noise(count), np.arange(count) % 2
    for image, label in zip(images, labels, strict=True):
        image[:, 9:11, 3:17] += 150
        tip = 3 if label else 13
        image[:, 5:15, tip : tip + 4] += 40
    return images, labels


def look(images: Tensor, labels: np.ndarray | None = None, **changes: int) -> Mirroring:
    source = Drawn(images, labels)
    return look_at_mirrored(source, source, **{"channels": 1, "bits": 8, "short_side": 20, **changes})


def test_digits_are_not_mirrored_with_or_without_their_labels() -> None:
    digits = load_digits()
    images = torch.from_numpy((digits.images * 15).round().astype(np.uint8)).unsqueeze(1)
    for labels in (None, digits.target):
        assert not look(images, labels).harmless
    assert "told from originals 8" in str(look(images))
    assert "of their mirror images" in str(look(images, digits.target))


def test_images_without_a_side_are_mirrored() -> None:
    found = look(noise(600), np.arange(600) % 3)
    assert found.harmless and 0.4 < found.told / found.images < 0.6
    assert str(found).endswith("on 600 images, as by chance")
    assert look(noise(600).expand(-1, 5, -1, -1), channels=5).harmless


def test_arrows_to_the_left_and_to_the_right_are_told_by_their_labels_alone() -> None:
    images, labels = arrows(400)
    assert look(images).harmless
    found = look(images, labels)
    assert not found.harmless
    assert (found.right, found.mirrored) == (400, 0)
    assert str(found) == "a classifier of small pixels knows 100% of 400 images and 0% of their mirror images"


def test_a_side_that_every_image_has_is_told_whatever_its_depth() -> None:
    images = noise(300)
    images[:, :, :, :6] += 20
    for bits, given in ((8, images), (16, images.float() / 1e4)):
        found = look(given, bits=bits)
        assert not found.harmless and found.told == 300


def test_few_images_say_nothing_and_images_without_labels_help() -> None:
    images = noise(LEAST_IMAGES)
    few = Subset(Drawn(images, np.arange(LEAST_IMAGES) % 4), np.arange(20))
    options = {"channels": 1, "bits": 8, "short_side": 20}
    alone = look_at_mirrored(few, few, **options)
    assert not alone.harmless and str(alone) == "20 images are too few to tell that mirroring does no harm"
    assert look_at_mirrored(Drawn(images), few, **options).harmless


@pytest.mark.parametrize("labels", [np.arange(20), np.zeros(20, dtype=int), np.array([0] * 19 + [1])])
def test_labels_that_nothing_can_be_learned_from_are_left_out(labels: np.ndarray) -> None:
    assert look(noise(20), labels).labelled in (0, 20)


def test_images_that_are_all_alike_are_no_error() -> None:
    assert look(torch.zeros(250, 1, 8, 8, dtype=torch.uint8), np.arange(250) % 2).images == 250
