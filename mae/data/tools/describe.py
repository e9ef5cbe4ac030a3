"""Numbers of a data set: pixel statistics, channels, depth and sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from operator import add
from typing import NamedTuple

import numpy as np
import torch

from mae.data.progress_bar import with_progress
from mae.data.reading.decode import UnreadableImageError
from mae.data.segmentation.masks import IGNORE, MaskError, numbered
from mae.data.source import Source, evenly_spaced
from mae.data.statistics import PixelSums
from mae.data.tools.map_images import map_images

BINS = 8
BAR = 30  # characters of the longest bar


class Measured(NamedTuple):
    """Of one image: its sums, (H, W), whether it holds more than 8 bits, and the pixels of each class of its mask, (256,)."""

    sums: PixelSums
    size: tuple[int, int]
    deep: bool
    classes: np.ndarray | None


@dataclass(frozen=True)
class Description:
    """What some images of a source hold.

    Attributes:
        count: N, all images of the source.
        sizes: (H, W) of each that was measured.
        channels: C: 3 where one is in colour.
        bits: 8, or 16 where one holds more.
        mean: Per channel, in the units of ``measure_pixels``; every image counts the same, whatever its size, as in training.
        std: As ``mean``.
        unreadable: How many could not be read, or their masks.
        class_pixels: (256,) int64, of each class of the masks, the last those without a label; None where there are no masks.
    """

    count: int
    sizes: np.ndarray
    channels: int
    bits: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    unreadable: int
    class_pixels: np.ndarray | None


def describe(source: Source, images: int | None = None, workers: int = 0) -> Description:
    """Decode images, all or some evenly spread, and measure them.

    Raises:
        ValueError: None of them can be read, their channels cannot be mixed, or they are of one flat colour.
    """
    indices = evenly_spaced(len(source), len(source) if images is None else images).tolist()
    results = with_progress(map_images(source, indices, measure_one, workers), len(indices), "measuring")
    measured = [one for one in results if one is not None]
    if not measured:
        raise ValueError(f"none of the {len(indices):,} images looked at can be read: mae data check says why")
    sums = reduce(add, (one.sums for one in measured))
    mean, std = sums.statistics()
    masks = [one.classes for one in measured if one.classes is not None]
    return Description(
        count=len(source),
        sizes=np.array([one.size for one in measured]),
        channels=len(mean),
        bits=16 if any(one.deep for one in measured) else 8,
        mean=mean,
        std=std,
        unreadable=len(indices) - len(measured),
        class_pixels=reduce(add, masks) if masks else None,
    )


def measure_one(source: Source, index: int) -> Measured | None:
    """Return what is measured of an image; None where it cannot be read."""
    try:
        picture, mask = source.open(index), source.mask(index)
        image = picture.decode()
    except (UnreadableImageError, MaskError):
        return None
    classes = None if mask is None else np.bincount(mask.flatten(), minlength=IGNORE + 1)
    there = None if picture.missing is None else ~picture.missing
    sums = PixelSums.of(image, there).per_image()
    return Measured(sums, (image.shape[-2], image.shape[-1]), image.dtype != torch.uint8, classes)


def histogram(values: Sequence[int] | np.ndarray) -> list[str]:
    """Return lines of text, one for each of up to eight ranges of equal width: the range, a bar, and how many."""
    low, high = int(np.min(values)), int(np.max(values))
    edges = np.unique(np.linspace(low, high + 1, min(BINS, high - low + 1) + 1).astype(np.int64))
    counts, _ = np.histogram(values, edges)
    labels = [f"{start:,}" if end - start == 1 else f"{start:,} to {end - 1:,}" for start, end in pairwise(edges)]
    return _bars(labels, counts, [f"{count:,}" for count in counts])


def class_shares(pixels: np.ndarray, classes: Sequence[str] = ()) -> list[str]:
    """Return lines of text, one for each class: its name or number, a bar, and its share of the pixels that have a label.

    Args:
        pixels: (256,), of which the last have no label.
        classes: Names of the K classes; none shows numbers, up to the greatest that occurs.
    """
    most = int(pixels[:IGNORE].nonzero()[0].max(initial=-1)) + 1
    labels = classes or numbered(most)
    counts = pixels[: len(labels)]
    return _bars(labels, counts, [f"{share:.2%}" for share in counts / max(1, counts.sum())])


def _bars(labels: Sequence[str], counts: np.ndarray, shown: Sequence[str]) -> list[str]:
    width, most = max(map(len, labels), default=0), counts.max(initial=1)
    return [
        f"{label:>{width}}  {'█' * round(BAR * count / most):<{BAR}}  {text}"
        for label, count, text in zip(labels, counts.tolist(), shown, strict=True)
    ]
