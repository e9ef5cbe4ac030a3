"""A look at the images before anything is chosen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mae.data.decode import UnreadableImageError
from mae.data.sources import Source

SIZES_READ = 256
IMAGES_DECODED = 16


@dataclass(frozen=True)
class Look:
    """What a sample of a source says of it.

    Attributes:
        count: N, all images.
        channels: 1 where every decoded image is grey, else 3.
        short_side: Median of the shorter sides, in pixels.
        smallest: The smallest side in the sample.
        largest: The largest side in the sample.
        in_memory: Whether images cost no reading and decoding.
    """

    count: int
    channels: int
    short_side: int
    smallest: int
    largest: int
    in_memory: bool

    def __str__(self) -> str:
        size = f"{self.smallest} px" if self.smallest == self.largest else f"{self.smallest} to {self.largest} px"
        return f"{self.count:,} {'grey' if self.channels == 1 else 'colour'} images of {size} (median short side {self.short_side})"


def spread(total: int, wanted: int) -> np.ndarray:
    """Return up to ``wanted`` indices, evenly spread over ``total``: the same in every run."""
    return np.unique(np.linspace(0, total - 1, min(total, wanted)).astype(np.int64))


def look_at(source: Source) -> Look:
    """Read the sizes of up to 256 images, and decode up to 16, evenly spread.

    Raises:
        ValueError: None of them can be read.
    """
    sizes, error = [], None
    for index in spread(len(source), SIZES_READ):
        try:
            sizes.append(source.size(int(index)))
        except UnreadableImageError as unreadable:
            error = unreadable
    channels = set()
    for index in spread(len(source), IMAGES_DECODED):
        try:
            channels.add(source.image(int(index)).shape[0])
        except UnreadableImageError as unreadable:
            error = unreadable
    if not sizes or not channels:
        raise ValueError(f"none of the images looked at can be read: {error}")
    sides = np.array(sizes)
    return Look(
        count=len(source),
        channels=max(channels),
        short_side=int(np.median(sides.min(axis=1))),
        smallest=int(sides.min()),
        largest=int(sides.max()),
        in_memory=source.in_memory,
    )
