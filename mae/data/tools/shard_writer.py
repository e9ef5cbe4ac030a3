"""A tar shard in the WebDataset convention, the same bytes each time."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import NamedTuple

from mae.data.shards.manifest import Shard, digest
from mae.data.statistics import PixelSums
from mae.data.tools.encode import Content
from mae.data.tools.packing_log import Finished


class Packed(NamedTuple):
    """An image as it goes into a shard, or why it does not."""

    number: int
    content: Content | None
    sums: PixelSums | None
    error: str = ""


class ShardWriter:
    """A shard that is being written: images ``000000000.jpg`` with labels ``000000000.cls``.

    Args:
        path: Of the file; it has another name until it is finished.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.partial = path.with_name(f"{path.name}.partial")
        self.tar = tarfile.open(self.partial, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 - closed by finish()
        self.images = 0
        self.bytes = 0
        self.sums: PixelSums | None = None
        self.unreadable: list[str] = []

    def add(self, packed: Packed, label: int | None) -> None:
        """Write an image, and its class where it has one."""
        assert packed.content is not None and packed.sums is not None, "it could be read"
        key = f"{packed.number:09}"
        self._member(f"{key}{packed.content.suffix}", packed.content.data)
        if label is not None:
            self._member(f"{key}.cls", str(label).encode())
        self.images += 1
        self.sums = packed.sums if self.sums is None else self.sums + packed.sums

    def _member(self, name: str, data: bytes) -> None:
        entry = tarfile.TarInfo(name)  # of no time and no owner
        entry.size = len(data)
        self.tar.addfile(entry, io.BytesIO(data))
        self.bytes += len(data)

    def finish(self, split: str, after: int) -> Finished:
        """Give the file its name; images before ``after`` are accounted for."""
        assert self.sums is not None, "a shard is opened for an image"
        self.tar.close()
        size, sha256 = self.partial.stat().st_size, digest(self.partial)
        self.partial.replace(self.path)
        return Finished(
            split,
            Shard(self.path.name, self.images, size, sha256),
            after,
            self.sums.total.tolist(),
            self.sums.squares.tolist(),
            self.unreadable,
        )
