"""Pictures that the tests of this room draw, and their files."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mae.data.reading.decode import EncodedPicture, TensorPicture, read_bytes
from mae.data.reading.transforms import cut
from mae.data.sources.bundled import TensorSource


def read_image(path: Path) -> torch.Tensor:
    """Read the image in a file as a source does, (C, H, W)."""
    return EncodedPicture(read_bytes(path), str(path)).decode()


def smooth(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Draw slow waves (H, W, C) uint8 that JPEG keeps nearly exactly; no two corners are alike."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [
        128 + 60 * np.sin(2 * np.pi * (x / width + a)) * np.cos(np.pi * y / height) + 50 * (y / height - x / width) * b
        for a, b in rng.uniform(0.3, 1, (channels, 2))
    ]
    return np.stack(waves, axis=-1).round().clip(0, 255).astype(np.uint8)


def write_image(path: Path, height: int = 20, width: int = 20, *, seed: int = 0, grey: bool = False) -> Path:
    """Write a small picture in the format of the path's suffix, creating folders on the way."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = smooth(height, width, 1 if grey else 3, seed)
    Image.fromarray(array[..., 0] if grey else array).save(path)
    return path


def write_folder(root: Path, count: int, height: int = 20, width: int = 20, *, grey: bool = False) -> Path:
    """Write ``count`` different pictures ``image_000.png`` and so on."""
    for number in range(count):
        write_image(root / f"image_{number:03}.png", height, width, seed=number, grey=grey)
    return root


def seen(transform: Any, image: torch.Tensor, rng: random.Random | None = None) -> torch.Tensor:
    """Return what a transform shows of an image (C, H, W)."""
    rng = rng or random.Random(0)
    window = transform.draw(tuple(image.shape[-2:]), rng)
    (part,) = cut(TensorPicture(image), [window], transform.image_size)
    return transform.finish(part, rng)


def counted(counts: Sequence[int] | None, length: int = 0) -> TensorSource:
    """Hold so many images of each class, shuffled, or so many without labels; pixel (0, 0, 0) is the image's number modulo 256."""
    labels = None if counts is None else np.random.default_rng(3).permutation(np.repeat(np.arange(len(counts)), counts))
    length = length if labels is None else len(labels)
    images = (torch.arange(length) % 256).to(torch.uint8).view(-1, 1, 1, 1).repeat(1, 1, 2, 2)
    return TensorSource(images, labels, tuple("abcdefgh"[: len(counts or ())]))
