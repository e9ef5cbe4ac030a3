"""Streams of tar shards in the WebDataset convention, over http, from a bucket or a disk."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import PurePosixPath

from mae.data.reading.decode import EXTENSIONS, UnreadableImageError
from mae.data.shards.tar_members import ARRAY, images_of
from mae.data.splits import Splits
from mae.data.streaming.remote import RemoteFile
from mae.data.streaming.shard_urls import find_shards
from mae.data.streaming.stream import Encoded, Shards, stream_splits


def stream_webdataset(
    root: str | None,
    val_root: str | None = None,
    *,
    images: int | None = None,
    buffer: int = 1000,
    readers: int | None = None,
) -> Splits:
    """Shards that are read from their beginning and never kept; no labels.

    Args:
        root: A pattern such as ``http://host/train-{000..099}.tar``, several with ``::`` between them, or a folder that has a
            manifest.
        val_root: As ``root``; None asks the manifest, or holds the last shards out.
        images: In all shards of ``root``; None asks the manifest.
        buffer: Images of a device among which the next one is drawn.
        readers: Shards that a device reads side by side; None chooses.

    Raises:
        ValueError: A shard is not there, or nobody says how many images there are.
        ImportError: The extra is not installed.
    """
    try:
        import webdataset  # noqa: F401 - before any work starts
    except ImportError:
        raise ImportError(
            "data.stream=true needs the extra 'webdataset', which is not installed: pip install -e '.[webdataset]'"
        ) from None
    if root is None:
        raise ValueError(
            "data=webdataset needs shards: data.root=DIR, or \"data.root='http://host/train-{000..099}.tar'\""
        )
    found = find_shards(root, "train", "data.root")
    counts = images or found.images
    if counts is None:
        raise ValueError(
            f"nothing says how many images the {len(found.urls)} shards of data.root={root} hold: data.images=N does, "
            f"or a manifest.json beside them"
        )
    val = found.validation if val_root is None else find_shards(val_root, "val", "data.val_root").urls
    splits = stream_splits(TarShards(found.urls, counts), TarShards(val) if val else None, buffer, readers)
    return replace(splits, statistics=found.statistics)


class TarShards(Shards):
    """Tar files; images are known in them as in ``tars``."""

    def read(self, shard: int) -> Iterator[Encoded]:
        """Yield the images of a shard."""
        url = self.names[shard]
        stem = PurePosixPath(url).name
        damage: list[str] = []
        with RemoteFile(url) as file:
            for _, members in groupby(_members(file, damage), key=lambda member: _sample(member.name)[0]):
                for member in images_of({_sample(member.name)[1]: member for member in members}):
                    yield member._replace(name=f"{stem}/{member.name}")
        if damage:
            raise UnreadableImageError(f"{url} is damaged or cut off ({damage[0]}): the rest of it is left out")


def _members(file: RemoteFile, damage: list[str]) -> Iterator[Encoded]:
    """Yield the files of a tar that may be images, as far as it can be read; what is wrong with it is added to ``damage``."""
    from webdataset.tariterators import tar_file_iterator

    try:
        for member in tar_file_iterator(file, select_files=_may_be_image):
            yield Encoded(member["fname"], member["data"])
    except tarfile.TarError as error:
        damage.append(str(error).partition(" @ ")[0])  # where webdataset adds the object that it read from
        return
    # tarfile takes a file that ends between two members for a whole one.
    if file.url.endswith(".tar") and any(file.tail):
        damage.append("its end is missing")


def _may_be_image(name: str) -> bool:
    suffix = PurePosixPath(name).suffix.lower()
    return not PurePosixPath(name).name.startswith(".") and (suffix in EXTENSIONS or suffix == ARRAY)


def _sample(name: str) -> tuple[str, str]:
    """Return what the files of a sample have in common, and the suffix: all from the first dot on."""
    folder, _, base = name.rpartition("/")
    key, _, suffix = base.partition(".")
    return f"{folder}/{key}", f".{suffix}".lower()
