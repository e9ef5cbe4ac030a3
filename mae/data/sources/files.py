"""Folders of image files, without and with labels."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mae.data.reading.decode import EXTENSIONS, EncodedPicture, Picture, read_bytes, read_size
from mae.data.source import Source
from mae.data.sources.file_index import FileNames, Index
from mae.data.splits import Splits, with_validation


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


class FileSource(Source):
    """Image files below a root, with or without labels."""

    def __init__(
        self,
        root: Path,
        names: FileNames | Sequence[str],
        labels: np.ndarray | None = None,
        classes: tuple[str, ...] = (),
    ) -> None:
        self.root = root
        self.names = names if isinstance(names, FileNames) else FileNames.of(names)
        self.labels = labels
        self.classes = classes

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> Path:
        """Return the file."""
        return self.root / self.names[index]

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


def folder(root: str | None = None, index: str | None = None, run_dir: Path | None = None) -> Splits:
    """Images without labels: a folder, searched recursively; a file that lists them; or a pattern such as ``DIR/*/left/*.png``.

    The lines of a list are paths, absolute or relative to the folder that holds the list.

    Args:
        root: The folder, list or pattern.
        index: Folder for lists of images that runs share.
        run_dir: Keeps the run's own list, so that a resumed one sees what it began with.

    Raises:
        ValueError: There is no image.
        FileNotFoundError: The folder does not exist.
    """
    found = Index(index, run_dir)
    if root is not None and glob.has_magic(root) and not Path(root).expanduser().exists():
        names = found.listed(lambda: _matching(root))
        return replace(with_validation(FileSource(Path(), names), None, None), keep=found.keep)
    if root is not None and (listed := Path(root).expanduser()).is_file():
        names = found.listed(lambda: _listed(listed))
        return replace(with_validation(FileSource(listed.parent, names), None, None), keep=found.keep)
    path = existing_folder(root, "folder")
    return replace(with_validation(FileSource(path, found.find(path)), None, None), keep=found.keep)


def _matching(pattern: str) -> FileNames:
    found = glob.iglob(str(Path(pattern).expanduser()), recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
    names = sorted(name for name in found if Path(name).suffix.lower() in EXTENSIONS)
    if not names:
        raise ValueError(f"data.root={pattern} matches no image: quote the pattern for the shell, and try it with ls")
    return FileNames.of(names)


def _listed(path: Path) -> FileNames:
    if path.suffix.lower() in EXTENSIONS:
        raise ValueError(
            f"data.root={path} is an image: give the folder that holds it, or a text file that lists images"
        )
    try:
        with path.open(encoding="utf-8", errors="surrogateescape") as lines:
            names = FileNames.of(line.rstrip("\r\n") for line in lines if line.strip())
    except OSError as error:
        raise ValueError(f"data.root={path} cannot be read ({error.strerror})") from None
    if not len(names):
        raise ValueError(f"data.root={path} lists no image: write one path a line")
    first = path.parent / names[0]
    if not first.is_file():
        raise ValueError(
            f"data.root={path} begins with {names[0]!r}, and there is no file {first}: paths are relative to the list's folder"
        )
    return names


def image_folder(root: str | None = None, index: str | None = None, run_dir: Path | None = None) -> Splits:
    """``root/train/<class>/`` and, where they exist, ``root/val/<class>/`` and ``root/test/<class>/``.

    Without ``train`` the classes stand in the root itself.

    Args:
        root: The folder.
        index: As of ``folder``.
        run_dir: As of ``folder``.

    Raises:
        ValueError: There are no class folders, or a split has a class that training lacks.
        FileNotFoundError: The folder does not exist.
    """
    found = Index(index, run_dir)
    path = existing_folder(root, "image_folder")
    train_root = path / "train" if (path / "train").is_dir() else path
    classes = _class_names(train_root)
    train = _labelled(train_root, classes, found.find(train_root, "train"))
    others: list[FileSource | None] = []
    for split in ("val", "test"):
        split_root = path / split
        if train_root == path or not split_root.is_dir():
            others.append(None)
            continue
        surplus = set(_class_names(split_root)) - set(classes)
        if surplus:
            raise ValueError(f"{split_root} has the class {sorted(surplus)[0]!r}, which {train_root} has not")
        others.append(_labelled(split_root, classes, found.find(split_root, split)))
    return replace(with_validation(train, *others), keep=found.keep)


def _class_names(root: Path) -> tuple[str, ...]:
    names = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise ValueError(
            f"{root} has no class folders: data=image_folder wants train/<class>/; for images without labels take data=folder"
        )
    return tuple(names)


def _labelled(root: Path, classes: tuple[str, ...], found: FileNames) -> FileSource:
    """Return the images below the class folders; those beside them have no label, and are left out.

    Raises:
        ValueError: The folder of a class is gone, since an earlier part of the run listed its images.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    labels = np.fromiter((numbers.get(name.partition("/")[0], -1) for name in found), dtype=np.int64, count=len(found))
    strays = np.flatnonzero(labels < 0).tolist()
    gone = next((name for name in map(found.__getitem__, strays) if "/" in name), None)
    if gone is not None:
        raise ValueError(
            f"the class {gone.partition('/')[0]!r}, which the run began with, has no folder in {root}: resume on the data that the "
            f"run was started with, or start a new run"
        )
    names = FileNames.of(map(found.__getitem__, np.flatnonzero(labels >= 0).tolist())) if len(strays) else found
    return FileSource(root, names, labels[labels >= 0], classes)
