"""Which shards a pattern names, and what the manifest beside them says of them."""

from __future__ import annotations

import glob
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mae.data.shards.manifest import MANIFEST, Manifest, parse_manifest
from mae.data.streaming.remote import MissingError, RemoteFile

SPLITS = ("train", "val", "test")
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")


@dataclass(frozen=True)
class Found:
    """Shards that were found.

    Attributes:
        urls: Paths and URLs, in the order of the pattern.
        images: In each; None where a manifest is missing.
        validation: Shards that a manifest keeps for it, and that are not among ``urls``.
        statistics: Mean and deviation per channel of the training pixels, where one manifest says them.
    """

    urls: list[str]
    images: list[int] | None
    validation: list[str]
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None


def is_pattern(root: Any) -> bool:
    """Whether a root names shards one by one, or over a network: no folder of this machine."""
    return isinstance(root, str) and any(mark in root for mark in ("://", "::", "{"))


def find_shards(root: str, split: str, key: str = "data.root") -> Found:
    """Find the shards of a pattern; a folder stands for those of ``split`` in its manifest.

    Args:
        root: Paths and URLs with braces, and between several of them ``::``.
        split: ``train`` or ``val``.
        key: What the config calls the pattern.

    Raises:
        ValueError: A local shard does not exist, or a folder has no manifest.
    """
    packed = cache(find_manifest)
    urls: list[str] = []
    for name in expand(root, key):
        if name.endswith(ARCHIVES):
            urls.append(name)
            continue
        folder = name.rstrip("/")
        named = _shards(folder, packed(folder), split)
        if not named:
            raise ValueError(
                f"{folder}/{MANIFEST} names no shards for {split}: give theirs, as in \"{key}='{folder}/{split}-{{000..099}}.tar'\""
            )
        urls += named
    folders = list(dict.fromkeys(url.rpartition("/")[0] or "." for url in urls))
    every: dict[str, int] = {}
    for folder in folders:
        for part in SPLITS:
            every |= _shards(folder, packed(folder), part)
    counts = [every[url] for url in urls if url in every]
    validation = [url for folder in folders for url in _shards(folder, packed(folder), "val") if url not in urls]
    whole = packed(folders[0]) if len(folders) == 1 else None
    return Found(
        urls, counts if len(counts) == len(urls) else None, validation, None if whole is None else whole.statistics
    )


def _shards(folder: str, manifest: Manifest | None, split: str) -> dict[str, int]:
    """Return the URLs of a split, and their numbers of images."""
    if manifest is None or split not in manifest.splits:
        return {}
    return {f"{folder}/{shard.name}": shard.images for shard in manifest.splits[split].shards}


def expand(root: str, key: str = "data.root") -> list[str]:
    """Return the paths and URLs that a pattern names, in its order.

    Raises:
        ValueError: Its braces do not match, or a local pattern finds nothing.
    """
    import braceexpand  # which webdataset brings

    found: list[str] = []
    for part in root.split("::"):
        try:
            names = list(braceexpand.braceexpand(part, escape=False))
        except ValueError as error:
            raise ValueError(f"{key}={root} cannot be expanded: {error}") from None
        for name in names:
            found += [name] if "://" in name else _local(name, key)
    return found


def _local(name: str, key: str) -> list[str]:
    path = Path(name).expanduser()
    found = sorted(glob.glob(str(path))) if "*" in name else [str(path)] * path.exists()  # noqa: PTH207 - may be absolute
    if not found:
        raise ValueError(f"{name}, which {key} names, does not exist")
    return found


def find_manifest(folder: str) -> Manifest | None:
    """Return the manifest of a folder of shards, None where there is none.

    Raises:
        ValueError: It is none, or of another format; or nothing answers there.
    """
    url = f"{folder}/{MANIFEST}"
    try:
        with RemoteFile(url) as file:
            text = b"".join(iter(file.read, b""))
    except MissingError:
        return None
    return parse_manifest(text, url)
