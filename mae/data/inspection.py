"""A look at the images before anything is chosen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from mae.data.reading.decode import UnreadableImageError
from mae.data.source import Source, evenly_spaced

SIZES_READ = 256
IMAGES_DECODED = 16


@dataclass(frozen=True)
class Inspection:
    """What a sample of a source says of it.

    Attributes:
        count: N, all images.
        channels: C: 1 where every decoded image is grey, 3 where one is in colour; the data's own for others.
        short_side: Median of the shorter sides, in pixels.
        smallest: The smallest side in the sample.
        largest: The largest side in the sample.
        in_memory: Whether images cost no reading and decoding.
        bits: 8, or 16 where a decoded image holds more.
        stream_shards: Shards of a stream, 0 where images are read at random.
        missing: Share of the pixels of decoded images that are not there: not finite, no data, or transparent.
    """

    count: int
    channels: int
    short_side: int
    smallest: int
    largest: int
    in_memory: bool
    bits: int = 8
    stream_shards: int = 0
    missing: float = 0.0

    def __str__(self) -> str:
        size = f"{self.smallest} px" if self.smallest == self.largest else f"{self.smallest} to {self.largest} px"
        kind = {1: "grey", 3: "colour"}.get(self.channels, f"{self.channels}-channel")
        depth = "" if self.bits == 8 else " with more than 8 bits"
        lacking = f", {max(self.missing, 0.001):.1%} of the pixels missing" if self.missing else ""
        return f"{self.count:,} {kind} images of {size}{depth} (median short side {self.short_side}){lacking}"


def inspect_images(source: Source) -> Inspection:
    """Read the sizes of up to 256 images, and decode up to 16, evenly spread.

    Raises:
        ValueError: None of them can be read, or their channels cannot be mixed.
    """
    sizes, error, sample = [], None, source.sample
    for index in evenly_spaced(len(sample), SIZES_READ):
        try:
            sizes.append(sample.size(int(index)))
        except UnreadableImageError as unreadable:
            error = unreadable
    channels, deep, missing = set(), False, []
    for index in evenly_spaced(len(sample), IMAGES_DECODED):
        try:
            picture = sample.open(int(index))
            image = picture.decode()
            channels.add(image.shape[0])
            deep |= image.dtype != torch.uint8
            missing.append(0.0 if picture.missing is None else float(picture.missing.float().mean()))
        except UnreadableImageError as unreadable:
            error = unreadable
    if not sizes or not channels:
        raise ValueError(f"none of the images looked at can be read: {error}")
    if len(channels) > 1 and channels != {1, 3}:
        held = " and ".join(str(number) for number in sorted(channels))
        raise ValueError(f"images of {held} channels are mixed: only grey and colour images can stand side by side")
    sides = np.array(sizes)
    return Inspection(
        count=len(source),
        channels=max(channels),
        bits=16 if deep else 8,
        short_side=int(np.median(sides.min(axis=1))),
        smallest=int(sides.min()),
        largest=int(sides.max()),
        in_memory=source.in_memory,
        stream_shards=source.stream_shards,
        missing=float(np.mean(missing)),
    )
