"""What a stream is: training images from shards without random access. The order in which they come is in ``stream_order``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

from mae.data.reading.decode import Picture, UnreadableImageError
from mae.data.shards.shard_source import open_member
from mae.data.source import Source, evenly_spaced
from mae.data.splits import VALIDATION_SHARE, Splits

MOST_READERS = 16
VALIDATION_IN_MEMORY = 2000
SAMPLE_MOST = 256
SAMPLE_SHARDS = 4


class Encoded(NamedTuple):
    """An image as it is stored: what a person calls it, and the content of its file."""

    name: str
    data: bytes

    def open(self) -> Picture:
        """Open it. Raises UnreadableImageError where it cannot be read."""
        return open_member(self.data, self.name)


class Shards(ABC):
    """Files of many images each, which can only be read from their beginning.

    Args:
        names: What a person calls each shard: its URL.
        images: In each shard, or in all of them, which then count as equal; nothing where it does not matter.

    Attributes:
        images: (S,) float64, images of each shard.
    """

    def __init__(self, names: Sequence[str], images: Sequence[int] | int = 0) -> None:
        self.names = tuple(names)
        self.images = np.full(len(names), images / len(names)) if isinstance(images, int) else np.array(images, float)

    @abstractmethod
    def read(self, shard: int) -> Iterator[Encoded]:
        """Yield the images of a shard, as they are stored.

        Raises:
            UnreadableImageError: It is cut off; what came before is good.
            ValueError: It is not there.
        """


class EncodedSource(Source):
    """Images of which the files lie in memory."""

    def __init__(self, images: Sequence[Encoded]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def open(self, index: int) -> Picture:
        """Open an image."""
        return self.images[index].open()

    def name(self, index: int) -> str:
        """Return its shard, and its name in there."""
        return self.images[index].name


class Stream(Source):
    """Training images that come in an order of their own, by ``stream_order.StreamDataset``; none can be opened by its number.

    Args:
        shards: Shards.
        indices: Those that are trained on.
        sample: Some of their images, for a look.
        buffer: Images of a rank among which the next one is drawn.
        readers: How many of them a rank reads side by side; None chooses.
    """

    def __init__(
        self, shards: Shards, indices: np.ndarray, sample: EncodedSource, buffer: int = 1000, readers: int | None = None
    ) -> None:
        self.shards = shards
        self.indices = indices
        self._sample = sample
        self.buffer = buffer
        self.readers = readers
        self.stream_shards = len(indices)

    def __len__(self) -> int:
        return round(float(self.shards.images[self.indices].sum()))

    @property
    def sample(self) -> Source:
        """A few of the images."""
        return self._sample

    def open(self, index: int) -> Picture:
        """Raise a ValueError: there is no such access."""
        raise ValueError("the images of a stream come in its own order alone: none can be opened by its number")

    def name(self, index: int) -> str:
        """Return the number in the epoch."""
        return f"image {index} of the stream"

    def readers_for(self, world: int, num_workers: int) -> int:
        """Return how many shards each rank reads side by side, which the config calls ``data.lanes``.

        Raises:
            ValueError: There are too few shards for that, or the workers cannot share out the readers.
        """
        shards = len(self.indices)
        most = choose_readers(shards, world)
        if not most:
            raise ValueError(
                f"{shards} shards to train on are fewer than the {world} devices: use trainer.devices={shards}, or cut the images "
                f"into more shards"
            )
        readers = self.readers or most
        if readers * world > shards:
            raise ValueError(
                f"data.lanes={readers} wants {readers * world} shards for {world} device{'s' * (world > 1)}, and there are "
                f"{shards} to train on: choose data.lanes={most} or less"
            )
        if num_workers and readers % num_workers:
            fitting = [str(number) for number in range(readers + 1) if not number or readers % number == 0]
            raise ValueError(
                f"data.num_workers={num_workers} does not divide data.lanes={readers}, the shards that are read side "
                f"by side: choose data.num_workers={' or '.join(fitting)}"
            )
        return readers


def choose_readers(shards: int, world: int) -> int:
    """Return the largest power of two that is not above 16 and the shards of a rank; 0 where a rank would have none."""
    most = min(MOST_READERS, shards // world)
    return 1 << (most.bit_length() - 1) if most else 0


def read_shards(shards: Shards, order: Iterable[int], unreadable: list[str]) -> Iterator[Encoded]:
    """Yield the images of shards, one shard after the other; those that are cut off are added to ``unreadable``."""
    for shard in order:
        try:
            yield from shards.read(shard)
        except UnreadableImageError as error:
            unreadable.append(str(error))


def read_some(shards: Shards, indices: np.ndarray, most: int) -> EncodedSource:
    """Read the first images of each of some shards into memory, ``most`` of them together.

    Raises:
        ValueError: There is none, or a shard is not there.
    """
    unreadable: list[str] = []
    images: list[Encoded] = []
    for number, shard in enumerate(indices):
        share = -(-(most - len(images)) // (len(indices) - number))
        images += islice(read_shards(shards, [int(shard)], unreadable), share)
    if not images:
        raise ValueError("; ".join(unreadable) or f"there is no image in {shards.names[indices[0]]}")
    return EncodedSource(images)


def shards_held_out(images: np.ndarray) -> int:
    """Return how many shards are held out from the end: a tenth, and no more than 2,000 images take; at least one."""
    enough = int(np.searchsorted(np.cumsum(images[::-1]), VALIDATION_IN_MEMORY)) + 1
    return max(1, min(round(VALIDATION_SHARE * len(images)), enough))


def stream_splits(train: Shards, val: Shards | None, buffer: int, readers: int | None) -> Splits:
    """Return the stream of some shards, and validation images that are read into memory at once, 2,000 at most.

    Where there are no shards for validation, the last ones are held out of training.

    Raises:
        ValueError: There is one shard and none can be held out, or one is not there.
    """
    indices = np.arange(len(train.names))
    if val is not None:
        held = read_some(val, np.arange(len(val.names)), VALIDATION_IN_MEMORY)
        origin = "the first images of their own shards"
    else:
        if len(indices) < 2:
            raise ValueError(
                f"{train.names[0]} is the only shard, so none can be held out for validation: give data.val_root, or cut the "
                f"images into more shards"
            )
        count = shards_held_out(train.images)
        indices, last = np.split(indices, [-count])
        held = read_some(train, last, VALIDATION_IN_MEMORY)
        origin = f"the first images of the last {count} shards, which are held out of training"
        if count == 1:
            origin = "the first images of the last shard, which is held out of training"
    sample = read_some(train, indices[evenly_spaced(len(indices), SAMPLE_SHARDS)], SAMPLE_MOST)
    return Splits(Stream(train, indices, sample, buffer, readers), held, None, origin)
