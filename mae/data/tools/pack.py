"""Any data to tar shards: read in long stretches, copied as a few files, and decoded faster where they are made smaller."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial, reduce
from operator import add
from pathlib import Path
from typing import Any

from mae.data.progress_bar import with_progress
from mae.data.reading.decode import UnreadableImageError
from mae.data.shards.manifest import Manifest, Split
from mae.data.shards.shard_source import open_member
from mae.data.shards.tar_members import index_shards
from mae.data.source import Source
from mae.data.statistics import PixelSums
from mae.data.tools.encode import QUALITY, stored
from mae.data.tools.map_images import map_images
from mae.data.tools.packing_log import PackingLog
from mae.data.tools.shard_writer import Packed, ShardWriter

SHARD_BYTES = 200 * 10**6
"""A shard is closed before it passes this: large enough for disks and copying, small enough that a packing which is killed loses
little, and that there are many of them for many workers."""
SHARD_IMAGES = 10_000
"""And after this many images: small ones too make several shards."""


@dataclass(frozen=True)
class PackOptions:
    """What decides the bytes of the shards.

    Attributes:
        short_side: Pixels that the shorter side has at most; None keeps the stored bytes.
        quality: Of JPEGs that are made smaller, 1 to 100.
        shard_images: Images of a shard at most.

    Raises:
        ValueError: A value is out of range.
    """

    short_side: int | None = None
    quality: int = QUALITY
    shard_images: int = SHARD_IMAGES

    def __post_init__(self) -> None:
        if self.short_side is not None and self.short_side < 1:
            raise ValueError(f"--short-side {self.short_side} leaves no pixel: choose 1 or more, such as 256")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"--quality {self.quality} is none of a JPEG: choose 1 to 100, such as {QUALITY}")
        if self.shard_images < 1:
            raise ValueError(f"--shard-images {self.shard_images} leaves no image: choose 1 or more")


def pack(
    splits: Mapping[str, Source], root: Path, options: PackOptions, described: Mapping[str, Any], workers: int = 0
) -> Manifest:
    """Write the images of each split to shards, an index of them, and a manifest; return the manifest.

    The bytes are a function of the images and options: not of the time, the workers, or how often it was stopped. Images that
    cannot be read are left out, and listed in unreadable.txt.

    Args:
        splits: Sources by name: train, val, test.
        root: A new folder, or one in which this was begun.
        options: Size and quality.
        described: What the source is, for the manifest.
        workers: Processes that encode; 0 is this one.

    Raises:
        ValueError: The folder holds something else, it cannot be written, or no image of a split can be read.
    """
    prints = {name: fingerprint(source, str(described.get("root") or "")) for name, source in splits.items()}
    try:
        log = PackingLog(root, {"options": asdict(options), "source": dict(described), "images": prints})
        for name, source in splits.items():
            _pack_split(name, source, log, options, workers)
        manifest = _finish(splits, log, options, described)
        log.close()
    except OSError as error:
        raise ValueError(
            f"{root} cannot be written ({error.strerror or error}): make room, and repeat the command; finished shards are kept"
        ) from None
    return manifest


def fingerprint(source: Source, root: str) -> str:
    """Return what tells a source from another one: the number, names (below its root) and labels of its images."""
    known = hashlib.sha256()
    for index in range(len(source)):
        known.update(os.fsencode(source.name(index).removeprefix(root)) + b"\0")
    if source.labels is not None:
        known.update(source.labels.astype("<i8").tobytes())
    return f"{len(source)} {known.hexdigest()[:32]}"


def encode_one(source: Source, index: int, options: PackOptions) -> Packed:
    """Return an image as it is to be stored; it has been read back as a run will read it."""
    try:
        content = stored(source.open(index), options.short_side, options.quality)
        picture = open_member(content.data, f"{source.name(index)} as {content.suffix}")
        image = picture.decode()
    except UnreadableImageError as error:
        return Packed(index, None, None, str(error))
    there = None if picture.missing is None else ~picture.missing
    return Packed(index, content, PixelSums.of(image, there).per_image())


def _pack_split(name: str, source: Source, log: PackingLog, options: PackOptions, workers: int) -> None:
    """Write the shards of a split that are not finished."""
    finished = log.of(name)
    first = finished[-1].after if finished else 0
    writer: ShardWriter | None = None
    skipped: list[str] = []
    images = map_images(source, range(first, len(source)), partial(encode_one, options=options), workers)
    for packed in with_progress(images, len(source), f"packing {name}", done=first):
        if packed.content is None:
            (writer.unreadable if writer else skipped).append(packed.error)
            continue
        full = writer is not None and (
            writer.images >= options.shard_images or writer.bytes + len(packed.content.data) > SHARD_BYTES
        )
        if writer is not None and full:
            log.add(writer.finish(name, packed.number))
            writer = None
        if writer is None:
            writer = ShardWriter(log.root / f"{name}-{len(log.of(name)):06}.tar")
            writer.unreadable, skipped = skipped, []
        writer.add(packed, None if source.labels is None else int(source.labels[packed.number]))
    if writer is not None:
        log.add(writer.finish(name, len(source)))
    elif not log.of(name):
        raise ValueError(f"none of the {len(source):,} images of {name} can be read: {skipped[0]}")


def _finish(
    splits: Mapping[str, Source], log: PackingLog, options: PackOptions, described: Mapping[str, Any]
) -> Manifest:
    """Write what stands beside the shards, the manifest last."""
    parts = {}
    for name, source in splits.items():
        finished = log.of(name)
        index_shards([log.root / one.shard.name for one in finished]).save(log.root / "index" / f"{name}.npz")
        sums = reduce(add, (one.sums for one in finished))
        mean, std = sums.statistics() if name == "train" else (None, None)
        parts[name] = Split(
            shards=tuple(one.shard for one in finished),
            images=sum(one.shard.images for one in finished),
            classes=source.classes,
            channels=len(sums.total),
            short_side=options.short_side,
            mean=mean,
            std=std,
        )
    unreadable = [message for one in log.finished for message in one.unreadable]
    if unreadable:
        text = "".join(f"{message}\n" for message in unreadable)
        (log.root / "unreadable.txt").write_text(text, encoding="utf-8", errors="backslashreplace")
    manifest = Manifest(described, asdict(options), parts)
    manifest.write(log.root)
    return manifest
