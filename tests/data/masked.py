"""Images with masks that the tests of this room draw, and batches of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mae.data.datamodule import ImageData
from mae.data.loading.batches import Batch
from mae.data.open_splits import open_splits
from mae.data.segmentation.mask_inspection import MaskInspection, open_masks
from mae.data.splits import Splits

SIDE = 10
"""Columns, and rows, of the fields that a mask of places tells apart: 100 classes."""


def places(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw an image whose red grows to the right and whose green grows downwards, and a mask of the fields of a board on it."""
    y, x = np.mgrid[0:height, 0:width]
    image = np.stack([255 * x / (width - 1), 255 * y / (height - 1), 0 * x], axis=-1).round().astype(np.uint8)
    return image, (y * SIDE // height * SIDE + x * SIDE // width).astype(np.uint8)


def write_pair(image: Path, mask: Path, ids: np.ndarray, pixels: np.ndarray | None = None, **options: Any) -> None:
    for path in (image, mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.stack([ids] * 3, axis=-1).astype(np.uint8) if pixels is None else pixels).save(image, **options)
    Image.fromarray(ids).save(mask)


def board(classes: int, height: int = 20, width: int = 24) -> np.ndarray:
    """Draw a mask of vertical stripes, one a class."""
    return np.tile(np.arange(width) * classes // width, (height, 1)).astype(np.uint8)


def write_camvid(root: Path, train: int = 6, val: int = 3, classes: int = 3) -> Path:
    """Write pairs in the layout of CamVid."""
    for split, count in (("train", train), ("val", val)):
        for number in range(count):
            name = f"{number:03}.png"
            write_pair(
                root / split / name,
                root / f"{split}annot" / name,
                np.roll(board(classes), number, axis=1),
                np.random.default_rng((number, count)).integers(0, 256, (20, 24, 3), dtype=np.uint8),
            )
    return root


def put(root: Path, name: str, mask: np.ndarray) -> None:
    """Write a mask in place of another."""
    Image.fromarray(mask).save(root / name)


def opened(root: Path, **options: Any) -> Splits:
    return open_splits("segmentation_folder", root=str(root), **options)


def checked(root: Path, **options: Any) -> tuple[Splits, MaskInspection]:
    return open_masks(opened(root, **options))


def data_module(splits: Splits, **changes: Any) -> ImageData:
    options: dict[str, Any] = {"image_size": (16, 16), "channels": 3, "effective_batch": 2, "micro_batch": 2}
    options |= {"min_scale": 0.3, "flip": True, "num_workers": 0, "seed": 5, "masks": True}
    return ImageData(splits, **{**options, **changes})


def epoch(data: ImageData, number: int = 0) -> list[Batch]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(number)
    return list(loader)


def same(first: list[Batch], second: list[Batch]) -> bool:
    return all(torch.equal(a, b) for x, y in zip(first, second, strict=True) for a, b in zip(x[:3], y[:3], strict=True))
