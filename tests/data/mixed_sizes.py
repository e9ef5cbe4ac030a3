"""Images of very different sizes, and what training measures on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from mae.data.datamodule import ImageData
from mae.data.splits import Splits


def write_large_and_small(root: Path) -> Path:
    """Write a large dark image and nine small bright ones, each of two halves."""
    root.mkdir(parents=True)
    for number in range(10):
        side, level = (400, 20) if number == 4 else (16, 200)
        image = np.full((side, side, 3), level, dtype=np.uint8)
        image[: side // 2] += 40
        Image.fromarray(image).save(root / f"{number}.png")
    return root


def as_training_measures(splits: Splits) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and deviation of all images as a run sees them, at one size."""
    assert splits.whole is not None
    data = ImageData(
        Splits(splits.whole, splits.whole, None, ""),
        image_size=(16, 16),
        channels=3,
        effective_batch=1,
        micro_batch=1,
        min_scale=1,
        flip=False,
        num_workers=0,
        seed=0,
    )
    return data.measure_pixels()
