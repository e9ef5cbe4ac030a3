"""The list of a folder's images: scanned once, kept in a file, and small in memory."""

from __future__ import annotations

import os
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mae.data.progress_bar import with_progress
from mae.data.reading.decode import EXTENSIONS


class FileNames:
    """File names, one after the other in a block of bytes: ten million take some 500 MB, once.

    A list of strings would take twice that, and be copied into every worker as its references are counted. Tensors are
    shared with workers that are forked and with those that are not.

    Args:
        text: uint8, all names, as the file system has them.
        ends: int64 (N,), where each ends.
    """

    def __init__(self, text: Tensor, ends: Tensor) -> None:
        self.text = text
        self.ends = ends

    @classmethod
    def of(cls, names: Iterable[str]) -> FileNames:
        """Return names that come one by one."""
        text, ends = bytearray(), []
        blocks = []
        for name in names:
            text += os.fsencode(name)
            ends.append(len(text))
            if len(ends) == 1 << 20:  # a list of ten million numbers would be as large as the names
                blocks.append(np.array(ends, dtype=np.int64))
                ends = []
        blocks.append(np.array(ends, dtype=np.int64))
        return cls(
            torch.from_numpy(np.frombuffer(text, dtype=np.uint8).copy()), torch.from_numpy(np.concatenate(blocks))
        )

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < len(self.ends):
            raise IndexError(index)
        start = int(self.ends[index - 1]) if index else 0
        return os.fsdecode(self.text[start : int(self.ends[index])].numpy().tobytes())

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))


class Scan(NamedTuple):
    """What a scan of a folder found.

    Attributes:
        names: Of the images, relative to the folder, sorted.
        folders: All folders below it, and itself.
        times: int64, when each of them was last changed, in nanoseconds: another time means other files.
    """

    names: FileNames
    folders: FileNames
    times: np.ndarray

    def is_fresh(self, root: Path) -> bool:
        """Whether no folder has changed since."""
        try:
            return all(
                (root / name).stat().st_mtime_ns == time for name, time in zip(self.folders, self.times, strict=True)
            )
        except OSError:
            return False

    def save(self, path: Path) -> None:
        """Write a file, complete or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.npz")
        blocks = [block.numpy() for names in (self.names, self.folders) for block in (names.text, names.ends)]
        np.savez(partial, *blocks, self.times)
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> Scan:
        """Read what ``save`` wrote.

        Raises:
            ValueError: The file is no index.
        """
        try:
            with np.load(path) as stored:
                *blocks, times = (stored[f"arr_{number}"] for number in range(5))
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{path} is not the index of a folder ({error}): delete it, and it is made again"
            ) from None
        text, ends, folders, folder_ends = (torch.from_numpy(block) for block in blocks)
        return cls(FileNames(text, ends), FileNames(folders, folder_ends), times)


def scan(root: Path) -> Scan:
    """Find the image files below a folder, sorted; names that start with a dot are passed over.

    Raises:
        ValueError: There is no file, none has the name of an image, or a folder may not be read.
    """
    folders: list[str] = []
    times: list[int] = []
    files = with_progress(walk(root, folders, times), None, f"scanning {root}", "files")
    names, others = with_suffix(files, EXTENSIONS)
    if not len(names):
        raise ValueError(
            f"{root} holds no image: {others}; images are known by their names ({' '.join(sorted(EXTENSIONS))})"
        )
    return Scan(names, FileNames.of(folders), np.array(times, dtype=np.int64))


def with_suffix(files: Iterable[str], suffixes: Collection[str]) -> tuple[FileNames, str]:
    """Return the files of some suffixes, in any case, and in words what the others are."""
    others: Counter[str] = Counter()

    def wanted() -> Iterator[str]:
        for name in files:
            suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 - ten times faster than Path, on millions of names
            if suffix in suffixes:
                yield name
            else:
                others[suffix or "no suffix"] += 1

    names = FileNames.of(wanted())
    held = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(3))
    return names, f"only {held}" if held else "it is empty"


def walk(root: Path, folders: list[str] | None = None, times: list[int] | None = None) -> Iterator[str]:
    """Yield every file below a folder, relative to it and sorted; links are followed, and names with a first dot passed over.

    Args:
        root: The folder.
        folders: Takes the folders that were entered.
        times: Takes the times of their last change.

    Raises:
        ValueError: A folder may not be read.
    """
    yield from _walk(root, "", (), [] if folders is None else folders, [] if times is None else times)


def _walk(
    root: Path, below: str, above: tuple[tuple[int, int], ...], folders: list[str], times: list[int]
) -> Iterator[str]:
    status = (root / below).stat()
    here = (status.st_dev, status.st_ino)
    if here in above:  # a link to a folder above would go round for ever
        return
    folders.append(below)
    times.append(status.st_mtime_ns)
    try:
        entries = [(entry.name, entry) for entry in os.scandir(root / below) if not entry.name.startswith(".")]
    except PermissionError:
        raise ValueError(f"{root / below} may not be read: check its permissions") from None
    found = []
    for name, entry in entries:
        try:
            if entry.is_dir():
                found.append(f"{name}/")  # with its slash it stands where its files stand among the sorted paths
            elif entry.is_file():
                found.append(name)
        except OSError:  # a link to itself
            continue
    for name in sorted(found):
        if name.endswith("/"):
            yield from _walk(root, f"{below}{name}", (*above, here), folders, times)
        else:
            yield f"{below}{name}"


class Index:
    """Finds the images of folders, from files of earlier scans where there are any.

    Args:
        shared: Folder for such files that runs share, which a person names; what changed since is scanned again.
        run_dir: Of this run, which keeps its own in ``index``: a resumed run sees the list that it began with.
    """

    def __init__(self, shared: str | None = None, run_dir: Path | None = None) -> None:
        self.shared = None if shared is None else Path(shared).expanduser()
        self.own = None if run_dir is None else run_dir / "index"
        self._new: dict[str, tuple[Scan, bool]] = {}  # and whether the folder was scanned for it

    def find(self, root: Path, name: str = "images") -> FileNames:
        """Return the images below a folder, relative to it.

        Args:
            root: The folder.
            name: Of the file that keeps them: a split's.

        Raises:
            ValueError: There is none, or a folder may not be read.
        """
        own, shared = (folder and folder / f"{name}.npz" for folder in (self.own, self.shared))
        if own and own.is_file():
            found = Scan.load(own)
        elif shared and shared.is_file() and (kept := Scan.load(shared)).is_fresh(root):
            found = kept
            self._new[name] = (found, False)
        else:
            found = scan(root)
            self._new[name] = (found, True)
        return found.names

    def listed(self, search: Callable[[], FileNames], name: str = "images") -> FileNames:
        """Return names that a search finds which is no scan of a folder: the run's own, or new ones, which it will keep."""
        own = self.own and self.own / f"{name}.npz"
        if own and own.is_file():
            return Scan.load(own).names
        names = search()
        self._new[name] = (Scan(names, FileNames.of([]), np.empty(0, dtype=np.int64)), False)
        return names

    def keep(self) -> None:
        """Write the files that are not there yet."""
        for name, (found, scanned) in self._new.items():
            if self.own is not None:
                found.save(self.own / f"{name}.npz")
            if self.shared is not None and scanned:
                try:
                    found.save(self.shared / f"{name}.npz")
                except OSError as error:  # the run does not need it
                    warnings.warn(f"data.index={self.shared} cannot be written ({error.strerror})", stacklevel=2)
