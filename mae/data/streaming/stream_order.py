"""The order of a stream: shards that are read side by side, from their beginning, and can be entered in the middle.

A rank deals its shards out to readers; the k-th of its batches comes from reader k modulo their number. A reader takes its own
shards one after the other through a shuffle buffer, and starts over where they end. torch deals batches to workers in turn, so that
with a number of workers that divides the readers each reader is served by one worker, and the images and their order are the same
with 0, 2 or 4 workers. A run that goes on amid an epoch goes on with the very next batch, at the price of reading again, without
decoding, what was seen.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mae.data.loading.batches import ImageDataset, Item, Transform
from mae.data.loading.device_decoding import EncodedDataset
from mae.data.loading.order import Key, ResumableSampler
from mae.data.reading.decode import UnreadableImageError
from mae.data.streaming.stream import Encoded, Shards, Stream, read_shards

STAND_INS = 100
"""Images that are tried, one after the other, in place of one that cannot be read."""


def stable_number(text: str) -> int:
    """Return a signed number of 64 bits that is a function of a text alone, in every process."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def shuffled(images: Iterable[Encoded], size: int, rng: random.Random) -> Iterator[Encoded]:
    """Yield images in an order that is drawn from a buffer of ``size`` of them."""
    held: list[Encoded] = []
    for image in images:
        if len(held) < size:
            held.append(image)
            continue
        place = rng.randrange(size)
        yield held[place]
        held[place] = image
    rng.shuffle(held)
    yield from held


class Taken(NamedTuple):
    """An image that a reader gives.

    Attributes:
        image: Name and content.
        chance: What its crops are drawn from; another one where the reader gives it again.
    """

    image: Encoded
    chance: str


class ShardReader:
    """Images of some shards without end: all of them, in the order of a shuffle, then all of them in another one.

    Args:
        shards: Shards.
        mine: Those of this reader.
        buffer: Size of the shuffle buffer.
        chance: All that the order depends on.

    Attributes:
        place: Number of images that were taken.
        unreadable: Names of shards that were cut off, since somebody last looked.
    """

    def __init__(self, shards: Shards, mine: Sequence[int], buffer: int, chance: str) -> None:
        self.shards = shards
        self.mine = mine
        self.buffer = max(1, buffer)
        self.chance = chance
        self.place = 0
        self.unreadable: list[str] = []
        self._images = self._laps()
        self._ahead: deque[Taken] = deque()

    def take(self) -> Taken:
        """Return the next image."""
        self.place += 1
        return self._ahead.popleft() if self._ahead else next(self._images)

    def ahead(self) -> Iterator[Taken]:
        """Yield the images that come next, and leave them there."""
        for place in itertools.count():
            if place == len(self._ahead):
                self._ahead.append(next(self._images))
            yield self._ahead[place]

    def _laps(self) -> Iterator[Taken]:
        for lap in itertools.count():
            rng = random.Random(f"{self.chance} {lap}")
            image = None
            for image in shuffled(self._read(rng), self.buffer, rng):
                yield Taken(image, f"{image.name} {lap}" if lap else image.name)
            if image is None:
                held = ", ".join(self.unreadable or (self.shards.names[shard] for shard in self.mine[:3]))
                raise ValueError(f"the shards hold no image that can be read: {held}")

    def _read(self, rng: random.Random) -> Iterator[Encoded]:
        return read_shards(self.shards, rng.sample(self.mine, len(self.mine)), self.unreadable)


class StreamDataset(ImageDataset):
    """A stream seen through a transform, keyed by (epoch, position among the images of this rank).

    Keys are to come in order. Where one does not, as at a resume, its reader begins anew and passes over what came before.

    Args:
        stream: Images.
        transform: Draws windows and finishes them.
        channels: C of the result.
        seed: The order is a function of (seed, epoch, rank), crops and flips of (seed, epoch, name of the image).
        bits: 8 for uint8, 16 for float32 that keeps the full depth.
        repeats: Crops of each image, which is decoded once.
        batch: Images of a batch, not counting repeats.
        readers: Of ``Stream.readers_for``.
        rank: Which part of the shards is read, of
        world: this many.
    """

    def __init__(
        self,
        stream: Stream,
        transform: Transform,
        channels: int,
        seed: int = 0,
        bits: int = 8,
        repeats: int = 1,
        *,
        batch: int,
        readers: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        super().__init__(stream, transform, channels, seed, bits, repeats)
        self.stream = stream
        self.batch = batch
        self.readers = readers
        self.rank = rank
        self.world = world
        self._epoch = -1
        self._open: dict[int, ShardReader] = {}

    def __getitem__(self, key: Key) -> Item:
        """Return the crops of an image; where it is damaged, of the next one of its reader that is not.

        The one that stands in comes again in its own place, so that no place depends on what can be decoded.
        """
        epoch, position = key
        reader = self._reader(epoch, position)
        first = reader.take()
        for image, _ in itertools.chain([first], itertools.islice(reader.ahead(), STAND_INS)):
            try:
                crops = self.crops(image.open(), epoch, first.chance)
            except UnreadableImageError as error:
                reader.unreadable.append(str(error))
                continue
            unreadable = tuple(reader.unreadable)
            reader.unreadable.clear()
            return Item(crops.images, -1, stable_number(first.chance), unreadable, crops.valid)
        raise UnreadableImageError(f"{STAND_INS} images in a row cannot be read: {reader.unreadable[0]}, and so on")

    def _reader(self, epoch: int, position: int) -> ShardReader:
        """Return the reader of a position, about to give its image."""
        if epoch != self._epoch:
            self._epoch, self._open = epoch, {}
        batch, offset = divmod(position, self.batch)
        turn, number = divmod(batch, self.readers)
        place = turn * self.batch + offset
        reader = self._open.get(number)
        if reader is None or reader.place > place:
            reader = self._open[number] = self._new_reader(epoch, number)
        while reader.place < place:
            reader.take()
        return reader

    def _new_reader(self, epoch: int, number: int) -> ShardReader:
        order = np.random.default_rng((self.seed, epoch)).permutation(self.stream.indices)[self.rank :: self.world]
        chance = f"{self.seed} {epoch} {self.rank} {number}"
        return ShardReader(
            self.stream.shards, order[number :: self.readers].tolist(), self.stream.buffer // self.readers, chance
        )


class EncodedStreamDataset(StreamDataset, EncodedDataset):
    """As ``StreamDataset``, but JPEGs are handed on as they are stored."""


class StreamSampler(ResumableSampler):
    """The positions of a rank's images in an epoch, in order: whole effective batches, as ``ShuffledSampler`` gives."""

    def __init__(self, length: int, effective_batch: int, world: int = 1) -> None:
        self.length = length // effective_batch * effective_batch // world
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch, also after a resume."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Key]:
        for position in range(self.first, self.length):
            yield self.epoch, position
