"""What lies where in tar shards: an index of their images, so that any of them is read at once."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

UNLABELLED = -1


@dataclass(frozen=True)
class ShardIndex:
    """The N images of S shards.

    Attributes:
        shards: (S,) file names, as bytes.
        sizes: (S,) bytes of each file.
        shard: (N,) which of them holds an image.
        offset: (N,) where it begins.
        size: (N,) its bytes.
        names: All member names in one block of bytes: strings would be copied into every worker as they are counted.
        ends: (N,) where each name ends in the block.
        labels: (N,) classes; ``UNLABELLED`` throughout where there are none.
    """

    shards: np.ndarray
    sizes: np.ndarray
    shard: np.ndarray
    offset: np.ndarray
    size: np.ndarray
    names: np.ndarray
    ends: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.shard)

    def name(self, index: int) -> str:
        """Return the name of the member that is an image."""
        start = self.ends[index - 1] if index else 0
        return os.fsdecode(self.names[start : self.ends[index]].tobytes())

    def fits(self, paths: Sequence[Path]) -> bool:
        """Whether these are the shards that were indexed, as far as their names and sizes tell."""
        names = [os.fsencode(path.name) for path in paths]
        sizes = [path.stat().st_size for path in paths]
        return bool(names == self.shards.tolist() and sizes == self.sizes.tolist())

    def save(self, path: Path) -> None:
        """Write the index, complete or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}")  # several ranks may write at once
        with partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **{field.name: getattr(self, field.name) for field in fields(self)})
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> ShardIndex | None:
        """Return the index in a file; None where there is none that can be read."""
        try:
            with np.load(path, allow_pickle=False) as content:
                return cls(**{field.name: content[field.name] for field in fields(cls)})
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
