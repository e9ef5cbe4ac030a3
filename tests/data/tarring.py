"""Tar shards that the tests of this room write and pack."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mae.data.open_splits import open_splits
from mae.data.shards.manifest import Manifest
from mae.data.sources.files import image_folder
from mae.data.splits import Splits
from mae.data.tools.pack import PackOptions, pack
from tests.data.drawing import smooth, write_image


def write_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def picture(seed: int = 0, suffix: str = "png", size: int = 16) -> bytes:
    file = io.BytesIO()
    Image.fromarray(smooth(size, size, seed=seed)).save(file, format={"jpg": "jpeg"}.get(suffix, suffix))
    return file.getvalue()


def numbered(first: int, count: int, labelled: bool = True) -> dict[str, bytes]:
    """Return the members of a shard of different pictures, with labels that count modulo three."""
    members = {}
    for number in range(first, first + count):
        members[f"{number:05}.png"] = picture(number)
        if labelled:
            members[f"{number:05}.cls"] = str(number % 3).encode()
    return members


def array(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def open_shards(root: Path, run_dir: Path | None = None, **options: Any) -> Splits:
    return open_splits("webdataset", root=str(root), run_dir=run_dir, **options)


def write_classes(root: Path, count: int = 6, splits: tuple[str, ...] = ("train",)) -> Path:
    """Write a folder of ``split/class/`` with ``count`` pictures of each of two classes, PNG and JPEG, colour and grey."""
    for place, split in enumerate(splits):
        for number in range(2 * count):
            name = ("ant", "bee")[number % 2]
            suffix = "jpg" if number % 3 else "png"
            path = root / split / name / f"{number:03}.{suffix}"
            write_image(path, 24 + number, 32, seed=100 * place + number, grey=number % 4 == 0)
    return root


def pack_folder(root: Path, into: Path, workers: int = 0, **options: Any) -> Manifest:
    described = {"source": "image_folder", "root": str(root)}
    return pack(image_folder(str(root)).own, into, PackOptions(**options), described, workers)


def files_below(root: Path) -> dict[str, bytes]:
    """Return all that a folder holds."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
