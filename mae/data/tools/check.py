"""What is wrong with the images of a data set, found before a run meets it. Nothing is changed or deleted."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from mae.data.progress_bar import with_progress
from mae.data.reading.decode import MOST_PIXELS, EncodedPicture, Picture, UnreadableImageError
from mae.data.segmentation.masks import MaskError, fitting_mask
from mae.data.shards.manifest import read_manifest
from mae.data.source import Source
from mae.data.tools.map_images import map_images

TINY = 32

KINDS = {
    "damaged shard": "a shard that is not as it was packed: copy it again, or pack again",
    "truncated": "the file is cut off",
    "unreadable": "cannot be read as an image",
    "too large": f"more than {MOST_PIXELS:,} pixels, which are not decoded",
    "mask": "cannot be read, is of another size than its image, or holds what is no class",
    "duplicate": "the same content as an image before it",
    "tiny": "a side is very short",
    "animated": "more than one frame, of which the first is seen",
    "missing pixels": "some are not finite, no data or transparent: they are neither seen nor scored",
}
"""What is looked for."""
FATAL = ("damaged shard", "truncated", "unreadable", "too large", "mask")
"""What no run can use."""


class Finding(NamedTuple):
    """What is wrong with an image, or a shard: a line of the list."""

    split: str
    name: str
    kind: str
    detail: str


class Examined(NamedTuple):
    """A hash of an image's content, where it can be opened, and (kind, detail) of what is wrong with it."""

    content: bytes | None
    wrong: tuple[tuple[str, str], ...]


def check_images(splits: Mapping[str, Source], tiny: int = TINY, workers: int = 0) -> Iterator[Finding]:
    """Yield what is wrong with each image; duplicates are looked for across the splits, too.

    Args:
        splits: Sources by name.
        tiny: Pixels below which a side is reported.
        workers: Processes that decode; 0 is this one.
    """
    seen: dict[bytes, tuple[str, int]] = {}
    for split, source in splits.items():
        results = map_images(source, range(len(source)), partial(examine, tiny=tiny), workers)
        for index, found in enumerate(with_progress(results, len(source), f"checking {split}")):
            wrong = list(found.wrong)
            if found.content is not None:
                first_split, first = seen.setdefault(found.content, (split, index))
                if (first_split, first) != (split, index):
                    wrong.append(("duplicate", f"the same as {first_split} {splits[first_split].name(first)}"))
            for kind, detail in wrong:
                yield Finding(split, source.name(index), kind, detail)


def examine(source: Source, index: int, tiny: int) -> Examined:
    """Open and decode an image, and return what is wrong with it."""
    try:
        picture = source.open(index)
    except UnreadableImageError as error:
        return Examined(None, (_unreadable(error),))
    wrong = []
    height, width = picture.size
    if min(height, width) < tiny:
        wrong.append(("tiny", f"{width} x {height} pixels"))
    try:
        picture.decode()
        if isinstance(picture, EncodedPicture) and (frames := _frames(picture)) > 1:
            wrong.append(("animated", f"{frames} frames"))
        if picture.missing is not None:
            wrong.append(("missing pixels", f"{int(picture.missing.sum()):,} of {picture.missing.numel():,}"))
    except UnreadableImageError as error:
        wrong.append(_unreadable(error))
    try:
        fitting_mask(source, index, picture.size)
    except (UnreadableImageError, MaskError) as error:
        wrong.append(("mask", str(error)))
    return Examined(_hash(picture), tuple(wrong))


def check_shards(root: Path) -> Iterator[Finding]:
    """Yield the shards below a folder that are not as their manifest says; none where there is no manifest."""
    manifest = read_manifest(root)
    if manifest is None:
        return
    for name, split in manifest.splits.items():
        for shard in with_progress(split.shards, len(split.shards), f"checking the {name} shards", "shards"):
            if damage := shard.damage(root):
                yield Finding(name, str(root / shard.name), "damaged shard", damage)


def write_findings(findings: Sequence[Finding], path: Path) -> None:
    """Write the list as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Finding._fields)
        writer.writerows(findings)


def _unreadable(error: UnreadableImageError) -> tuple[str, str]:
    reason = str(error).rpartition(" cannot be read")[2].lower()
    if "exceeds limit" in reason or "safe to decode" in reason:
        return "too large", str(error)
    return "truncated" if "truncated" in reason else "unreadable", str(error)


def _frames(picture: EncodedPicture) -> int:
    if picture.mode is not None:  # a JPEG; what some cameras put behind the first image is a preview
        return 1
    try:
        with picture.opened() as opened:
            return int(getattr(opened, "n_frames", 1))
    except Exception:  # damage after the first frame, which alone is seen
        return 1


def _hash(picture: Picture) -> bytes:
    if isinstance(picture, EncodedPicture):
        return hashlib.blake2b(picture.data, digest_size=16).digest()
    image = picture.decode()
    return hashlib.blake2b(f"{image.shape} {image.dtype}".encode() + image.numpy().tobytes(), digest_size=16).digest()
