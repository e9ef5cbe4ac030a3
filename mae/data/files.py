"""Folders of image files, without and with labels."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mae.data.decode import EXTENSIONS, EncodedPicture, Picture, read_bytes, read_size
from mae.data.sources import Source, Splits, with_validation


def existing_folder(root: str | Path | None, source: str) -> Path:
    """Return the folder, or raise a ValueError or FileNotFoundError that says what is wrong with it."""
    if root is None:
        raise ValueError(f"data={source} needs a folder: data.root=DIR")
    path = Path(root).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"data.root={root} does not exist")
    if not path.is_dir():
        raise ValueError(f"data.root={root} is a file, not a folder: give the folder that holds it")
    return path


def find_images(root: Path) -> list[str]:
    """Return the image files below a folder, sorted, relative to it; names that start with a dot are passed over.

    Raises:
        ValueError: There is no file, or none has the name of an image.
    """
    found: list[str] = []
    others: Counter[str] = Counter()
    for name in _walk(root, "", ()):
        suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 - ten times faster than Path, on millions of names
        if suffix in EXTENSIONS:
            found.append(name)
        else:
            others[suffix or "no suffix"] += 1
    if not found:
        held = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(3))
        raise ValueError(
            f"{root} holds no image: {f'only {held}' if held else 'it is empty'}; "
            f"images are known by their names ({' '.join(sorted(EXTENSIONS))})"
        )
    return sorted(found)


def _walk(root: Path, below: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    status = (root / below).stat()
    here = (status.st_dev, status.st_ino)
    if here in above:  # a link to a folder above would go round for ever
        return
    try:
        entries = list(os.scandir(root / below))
    except PermissionError:
        raise ValueError(f"{root / below} may not be read: check its permissions") from None
    for entry in entries:
        if entry.name.startswith("."):
            continue
        try:
            is_folder, is_file = entry.is_dir(), entry.is_file()
        except OSError:  # a link to itself
            continue
        if is_folder:
            yield from _walk(root, f"{below}{entry.name}/", (*above, here))
        elif is_file:
            yield f"{below}{entry.name}"


class FileSource(Source):
    """Image files below a root, with or without labels."""

    def __init__(
        self, root: Path, names: list[str], labels: np.ndarray | None = None, classes: tuple[str, ...] = ()
    ) -> None:
        self.root = root
        # One block of bytes: a list of strings would be copied into every worker as its references are counted.
        self.names = np.array([os.fsencode(name) for name in names])
        self.labels = labels
        self.classes = classes

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> Path:
        """Return the file."""
        return self.root / os.fsdecode(self.names[index])

    def open(self, index: int) -> Picture:
        """Open an image."""
        path = self.path(index)
        return EncodedPicture(read_bytes(path), str(path))

    def size(self, index: int) -> tuple[int, int]:
        """Return (H, W) from the header."""
        return read_size(self.path(index))

    def name(self, index: int) -> str:
        """Return the path."""
        return str(self.path(index))


def folder(root: str | None) -> Splits:
    """Any folder of images, searched recursively; no labels."""
    path = existing_folder(root, "folder")
    return with_validation(FileSource(path, find_images(path)), None, None)


def image_folder(root: str | None) -> Splits:
    """``root/train/<class>/`` and, where they exist, ``root/val/<class>/`` and ``root/test/<class>/``.

    Without ``train`` the classes stand in the root itself.

    Raises:
        ValueError: There are no class folders, or a split has a class that training lacks.
    """
    path = existing_folder(root, "image_folder")
    train_root = path / "train" if (path / "train").is_dir() else path
    classes = _class_names(train_root)
    train = _labelled(train_root, classes)
    others: list[FileSource | None] = []
    for split in ("val", "test"):
        split_root = path / split
        if train_root == path or not split_root.is_dir():
            others.append(None)
            continue
        surplus = set(_class_names(split_root)) - set(classes)
        if surplus:
            raise ValueError(f"{split_root} has the class {sorted(surplus)[0]!r}, which {train_root} has not")
        others.append(_labelled(split_root, classes))
    return with_validation(train, *others)


def _class_names(root: Path) -> tuple[str, ...]:
    names = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise ValueError(
            f"{root} has no class folders: data=image_folder wants train/<class>/; for images without labels take data=folder"
        )
    return tuple(names)


def _labelled(root: Path, classes: tuple[str, ...]) -> FileSource:
    names = [name for name in find_images(root) if "/" in name]
    index = {name: number for number, name in enumerate(classes)}
    labels = np.array([index[name.partition("/")[0]] for name in names], dtype=np.int64)
    return FileSource(root, names, labels, classes)
