"""Tar shards in the WebDataset convention: which of their members are images, and what labels stand beside them."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from mae.data.progress_bar import with_progress
from mae.data.reading.decode import EXTENSIONS
from mae.data.shards.shard_index import UNLABELLED, ShardIndex

ARRAY = ".npy"
"""The suffix of images that are arrays: of more than 8 bits, or other channels than grey and colour."""

T = TypeVar("T")


class Member(NamedTuple):
    """A file in a tar, and where its bytes are."""

    name: str
    offset: int
    size: int


def index_shards(paths: Sequence[Path]) -> ShardIndex:
    """Read the headers of all members of shards.

    Raises:
        ValueError: A shard is cut off or no tar, a label is none, only some images have labels, or there is no image.
    """
    numbers: list[np.ndarray] = []  # (5, images) of each shard: arrays, as a list of a million numbers would be large
    names: list[bytes] = []
    for shard, path in enumerate(with_progress(paths, len(paths), "reading the shards' headers", "shards")):
        images, labels = _images(path)
        encoded = [os.fsencode(image.name) for image in images]
        rows = [
            (shard, image.offset, image.size, len(name), label)
            for image, name, label in zip(images, encoded, labels, strict=True)
        ]
        numbers.append(np.array(rows, dtype=np.int64).reshape(-1, 5).T)
        names.append(b"".join(encoded))
    shard_of, offset, size, lengths, labels_of = np.concatenate(numbers, axis=1)
    index = ShardIndex(
        shards=np.array([os.fsencode(path.name) for path in paths]),
        sizes=np.array([path.stat().st_size for path in paths], dtype=np.int64),
        shard=shard_of.astype(np.int32),
        offset=offset,
        size=size,
        names=np.frombuffer(b"".join(names), dtype=np.uint8),
        ends=lengths.cumsum(),
        labels=labels_of,
    )
    _check(index, paths)
    return index


def _check(index: ShardIndex, paths: Sequence[Path]) -> None:
    if not len(index):
        raise ValueError(
            f"none of the {len(paths)} tars in {paths[0].parent} holds an image: "
            f"members are known by their names ({' '.join(sorted(EXTENSIONS))} {ARRAY})"
        )
    without = int((index.labels == UNLABELLED).sum())
    if 0 < without < len(index):
        first = int(np.argmax(index.labels == UNLABELLED))
        raise ValueError(
            f"{without:,} of {len(index):,} images in the shards of {paths[0].parent} have no label, the first is "
            f"{os.fsdecode(index.shards[index.shard[first]])}/{index.name(first)}: label all of them (.cls) or none"
        )


def read_members(path: Path) -> Iterator[Member]:
    """Yield the files in a tar, in its order.

    Raises:
        ValueError: It is cut off, or no tar.
    """
    try:
        with tarfile.open(path, "r:") as tar:
            while (entry := tar.next()) is not None:
                if entry.isreg():
                    yield Member(entry.name, entry.offset_data, entry.size)
                tar.members = []  # type: ignore[attr-defined] # which tarfile would keep, a kilobyte each
            end = tar.offset
        with path.open("rb") as file:
            file.seek(end)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tarfile takes a missing end for the end
                raise tarfile.ReadError(f"its end is missing after {end:,} bytes")
    except (tarfile.TarError, OSError) as error:
        raise ValueError(
            f"the shard {path} is cut off, damaged or no tar ({error}): copy it again, or pack it again"
        ) from None


def _images(path: Path) -> tuple[list[Member], list[int]]:
    """Return the images in a tar and their classes, ``UNLABELLED`` where they have none."""
    groups: dict[str, dict[str, Member]] = {}
    for member in read_members(path):
        folder, _, base = member.name.rpartition("/")
        key, _, suffix = base.partition(".")
        if key:  # names that start with a dot are passed over, as in folders
            groups.setdefault(f"{folder}/{key}", {})[f".{suffix}".lower()] = member
    images: list[Member] = []
    labels: list[int] = []
    with path.open("rb") as file:
        for group in groups.values():
            found = images_of(group)
            images += found
            labels += [_label(path, file.fileno(), group)] * len(found)
    return images, labels


def images_of(group: dict[str, T]) -> list[T]:
    """Return the images under one key, by their suffixes.

    Beside ``key.jpg`` an array is something else, such as an embedding, and so is ``key.seg.png``.
    """
    single = [member for suffix, member in group.items() if suffix in EXTENSIONS]
    arrays = [member for suffix, member in group.items() if suffix == ARRAY]
    return single or arrays or [m for suffix, m in group.items() if f".{suffix.rpartition('.')[2]}" in EXTENSIONS]


def _label(path: Path, file: int, group: dict[str, Member]) -> int:
    """Return the class that stands beside an image, in ``key.cls`` or as "label" in ``key.json``."""
    if ".cls" in group:
        member = group[".cls"]
        text = os.pread(file, member.size, member.offset)
        if text.strip().isdigit():
            return int(text)
        raise ValueError(
            f"{path}/{member.name} holds {text[:20]!r}, no class: a .cls is the number of one, 0 or more, such as 7"
        )
    if ".json" in group:
        member = group[".json"]
        try:
            content = json.loads(os.pread(file, member.size, member.offset))
        except ValueError:
            raise ValueError(f"{path}/{member.name} is no JSON: mend it, or leave it out") from None
        label = content.get("label") if isinstance(content, dict) else None
        # Anything else, such as a caption, is no class; images that have none are unlabelled.
        return label if isinstance(label, int) and not isinstance(label, bool) and label >= 0 else UNLABELLED
    return UNLABELLED
