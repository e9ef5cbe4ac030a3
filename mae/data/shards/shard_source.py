"""Images in tar shards, read at random: exact order, labels and resume as of any other data."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mae.data.reading.decode import EncodedPicture, Picture, UnreadableImageError
from mae.data.shards.shard_index import ShardIndex
from mae.data.shards.tar_members import ARRAY
from mae.data.source import Source
from mae.data.sources.array_files import readable, to_picture

MOST_LAST = 4  # channels that a last axis may be; an image of more is not that narrow
OPEN_FILES = 256  # at most, per process: 1,024 is the usual limit, and the loader needs some


class ShardFiles:
    """Parts of files, read by position: processes that share a descriptor do not disturb each other."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)
        self._open: dict[int, int] = {}

    def read(self, number: int, offset: int, size: int) -> bytes:
        """Return bytes of a file. Raises OSError where they cannot be read or are not there."""
        descriptor = self._open.get(number)
        if descriptor is None:
            if len(self._open) >= OPEN_FILES:
                os.close(self._open.pop(next(iter(self._open))))
            descriptor = self._open[number] = os.open(self.paths[number], os.O_RDONLY)
        data = os.pread(descriptor, size, offset)
        if len(data) != size:
            raise OSError(0, f"the shard {self.paths[number]} is cut off")
        return data

    def __getstate__(self) -> dict[str, Any]:
        return {"paths": self.paths, "_open": {}}  # a descriptor means nothing in a process that was not forked

    def __del__(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)


class ShardSource(Source):
    """Images in tar shards."""

    def __init__(self, root: Path, index: ShardIndex, classes: tuple[str, ...] = ()) -> None:
        self.index = index
        self.files = ShardFiles([root / os.fsdecode(name) for name in index.shards])
        if classes:
            self.labels = index.labels
            self.classes = classes

    def __len__(self) -> int:
        return len(self.index)

    def name(self, index: int) -> str:
        """Return the path of the shard, and the name of the member."""
        return f"{self.files.paths[self.index.shard[index]]}/{self.index.name(index)}"

    def open(self, index: int) -> Picture:
        """Open an image."""
        at, name = self.index, self.name(index)
        try:
            data = self.files.read(int(at.shard[index]), int(at.offset[index]), int(at.size[index]))
        except OSError as error:
            raise UnreadableImageError(f"{name} cannot be read ({error.strerror})") from None
        return open_member(data, name)


def open_member(data: bytes, name: str) -> Picture:
    """Open the content of a member: an encoded image, or where the name says so an array.

    Arrays are (H, W), (C, H, W) as they are packed here, or (H, W, C) of up to four channels.

    Raises:
        UnreadableImageError: It is neither.
    """
    if not name.lower().endswith(ARRAY):
        return EncodedPicture(data, name)
    with readable(name):
        array = np.load(io.BytesIO(data), allow_pickle=False)
    if array.ndim == 2:
        array = array[None]
    elif array.ndim == 3 and array.shape[2] <= MOST_LAST < array.shape[0]:
        array = array.transpose(2, 0, 1)
    if array.ndim != 3 or not array.size or array.dtype.kind not in "biuf":
        raise UnreadableImageError(
            f"{name} is an array {array.shape} of {array.dtype}: an image is (C, H, W) of whole numbers or floats"
        )
    return to_picture(array, name)
