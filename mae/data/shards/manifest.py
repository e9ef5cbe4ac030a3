"""The manifest of packed shards: what was packed, and how each file has to be."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FORMAT = 1
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Shard:
    """A file, its images, and what tells whether it is whole."""

    name: str
    images: int
    bytes: int
    sha256: str

    def problem(self, root: Path) -> str | None:
        """Return what is wrong with the file as far as its size tells, in words."""
        path = root / self.name
        if not path.is_file():
            return f"{path} is missing, which {MANIFEST} names"
        size = path.stat().st_size
        if size != self.bytes:
            return f"{path} has {size:,} bytes, and {self.bytes:,} by {MANIFEST}"
        return None

    def damage(self, root: Path) -> str | None:
        """Return what is wrong with the file as far as all its bytes tell, in words."""
        problem = self.problem(root)
        if problem is None and digest(root / self.name) != self.sha256:
            return f"{root / self.name} has other bytes than when it was packed (sha256)"
        return problem


@dataclass(frozen=True)
class Split:
    """A packed split; mean and std, in the units of ``measure_pixels``, are those of the training split.

    Every image counts the same in them, whatever its size. Manifests in which each pixel did are read as they are.
    """

    shards: tuple[Shard, ...]
    images: int
    classes: tuple[str, ...]
    channels: int
    short_side: int | None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Manifest:
    """What ``mae data pack`` wrote: from where, how, and which files."""

    source: Mapping[str, Any]
    options: Mapping[str, Any]
    splits: Mapping[str, Split]

    @property
    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Mean and deviation per channel of the training pixels."""
        train = self.splits["train"]
        return None if train.mean is None or train.std is None else (train.mean, train.std)

    def write(self, root: Path) -> None:
        """Write it, complete or not at all: the last file of a packed folder."""
        content = {"format": FORMAT, **asdict(self)}
        partial = root / f".{MANIFEST}"
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        partial.replace(root / MANIFEST)

    def check(self, root: Path, found: Mapping[str, Sequence[Path]]) -> None:
        """Raise a ValueError where the shards that were found are not those of the manifest."""
        for split in self.splits.values():
            for shard in split.shards:
                if problem := shard.problem(root):
                    raise ValueError(f"{problem}: copy it again, or pack again")
        known = {shard.name for split in self.splits.values() for shard in split.shards}
        for path in (path for paths in found.values() for path in paths):
            if path.name not in known:
                raise ValueError(
                    f"{path} is not in {root / MANIFEST}: move it away, or delete the manifest to read all shards"
                )


def read_manifest(root: Path) -> Manifest | None:
    """Return the manifest in a folder, None where there is none.

    Raises:
        ValueError: It cannot be read, or is of another format.
    """
    path = root / MANIFEST
    return parse_manifest(path.read_bytes(), str(path)) if path.is_file() else None


def parse_manifest(text: bytes, path: str) -> Manifest:
    """Return what a file says, of which ``path`` is the name.

    Raises:
        ValueError: It cannot be read, or is of another format.
    """
    try:
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']}, and {FORMAT} is read here")
        splits = {name: _split(values) for name, values in content["splits"].items()}
        return Manifest(content["source"], content["options"], splits)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is no manifest of mae data pack ({error}): pack again, or delete it to read the shards without"
        ) from None


def _split(values: Mapping[str, Any]) -> Split:
    lists = {key: tuple(values[key]) for key in ("classes", "mean", "std") if values[key] is not None}
    return Split(**{**values, **lists, "shards": tuple(Shard(**shard) for shard in values["shards"])})


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
