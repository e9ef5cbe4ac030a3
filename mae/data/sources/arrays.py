"""Arrays as images, with any number of channels: multispectral, microscopy, and whatever else numpy holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mae.data.inspection import IMAGES_DECODED
from mae.data.reading.decode import Picture, UnreadableImageError
from mae.data.source import Source, evenly_spaced
from mae.data.sources.array_files import LAYOUTS, ImageArray, checked_labels, open_npy, open_npz, readable
from mae.data.sources.file_index import FileNames, walk, with_suffix
from mae.data.sources.tiff import TIFF_SUFFIXES, open_tiff
from mae.data.splits import Splits, with_validation

SPLIT_SUFFIXES = (".npy", ".npz", *TIFF_SUFFIXES)
IMAGE_SUFFIXES = (".npy", *TIFF_SUFFIXES)


@dataclass(frozen=True)
class Reading:
    """How files are read.

    Attributes:
        layout: ``data.layout``: one of ``LAYOUTS``; None tells it from the shape.
        pages: ``data.pages``: ``images`` or ``channels``; None tells it from the names of a TIFF's axes.
    """

    layout: str | None = None
    pages: str | None = None

    def __post_init__(self) -> None:
        if self.layout not in (None, *LAYOUTS):
            raise ValueError(f"data.layout={self.layout} is unknown: choose one of {', '.join(LAYOUTS)}")
        if self.pages not in (None, "images", "channels"):
            raise ValueError(f"data.pages={self.pages} is unknown: choose images or channels")


class ArraySource(Source):
    """The images of one file."""

    def __init__(self, images: ImageArray, labels: np.ndarray | None = None, classes: tuple[str, ...] = ()) -> None:
        self.images = images
        self.labels = labels
        self.classes = classes
        self.in_memory = images.in_memory

    def __len__(self) -> int:
        return len(self.images)

    def open(self, index: int) -> Picture:
        """Open an image."""
        return self.images.picture(index)

    def size(self, index: int) -> tuple[int, int]:
        """Return (H, W), which all images share."""
        return self.images.size

    def name(self, index: int) -> str:
        """Return the file and the number."""
        return f"{self.images.path} image {index}"


class ArrayFolder(Source):
    """Files of one image each, or TIFFs whose pages are images.

    Args:
        root: The folder.
        names: Files, relative to it.
        reading: How they are read.
        channels: C that every image must have; grey and colour stand in for each other.
        counts: Images of each file; None where each holds one.
    """

    def __init__(
        self, root: Path, names: FileNames, reading: Reading, channels: int, counts: Sequence[int] | None = None
    ) -> None:
        self.root = root
        self.names = names
        self.reading = reading
        self.channels = channels
        self.ends = None if counts is None else np.cumsum(counts)

    def __len__(self) -> int:
        return len(self.names) if self.ends is None else int(self.ends[-1])

    def open(self, index: int) -> Picture:
        """Open an image."""
        path, number = self._place(index)
        return self._opened(path).picture(number)

    def size(self, index: int) -> tuple[int, int]:
        """Return (H, W) from the header."""
        return self._opened(self._place(index)[0]).size

    def name(self, index: int) -> str:
        """Return the path, and the number within the file where it holds several."""
        path, number = self._place(index)
        return str(path) if self.ends is None else f"{path} image {number}"

    def _place(self, index: int) -> tuple[Path, int]:
        """Return the file of an image, and its number there."""
        if self.ends is None:
            return self.root / self.names[index], 0
        file = int(np.searchsorted(self.ends, index, side="right"))
        return self.root / self.names[file], index - (int(self.ends[file - 1]) if file else 0)

    def _opened(self, path: Path) -> ImageArray:
        images = open_image_file(path, self.reading)
        if self.ends is None and len(images) > 1:
            raise UnreadableImageError(
                f"{path} holds {len(images)} images: data.pages=images takes all of them, data.pages=channels makes them one"
            )
        if images.channels != self.channels and {images.channels, self.channels} != {1, 3}:
            raise UnreadableImageError(
                f"{path} holds {images.channels} channels, where the others hold {self.channels}"
            )
        return images


def arrays(root: str | None = None, layout: str | None = None, pages: str | None = None) -> Splits:
    """A file of images, a folder of ``train.npy`` and the like, or a folder of files of one image each.

    Labels stand beside their images, ``train_labels.npy`` beside ``train.npy``, or within the .npz file. Whole numbers of 8 bits
    stay as they are, those of 16 bits without a sign become floats in [0, 1], all others floats of the same value.

    Args:
        root: The file or folder.
        layout: ``NHW``, ``NHWC`` or ``NCHW``; None tells it from the shape, see ``array_axes``.
        pages: Whether pages of a TIFF are ``images`` or ``channels``; None tells it from their names, see ``tiff_axes``.

    Raises:
        ValueError: There are no images, or labels that are none.
        FileNotFoundError: The file or folder does not exist.
        ImportError: There are TIFFs, and tifffile is not installed.
    """
    if root is None:
        raise ValueError("data=arrays needs a file or a folder: data.root=PATH")
    path, reading = Path(root).expanduser(), Reading(layout, pages)
    if not path.exists():
        raise FileNotFoundError(f"data.root={root} does not exist")
    if path.is_file():
        return _splits([path, None, None], reading)
    files = [_split_file(path, name) for name in ("train", "val", "test")]
    if files[0] is not None:
        return _splits(files, reading)
    return with_validation(_open_folder(path, reading), None, None)


def _split_file(root: Path, name: str) -> Path | None:
    found = [root / f"{name}{suffix}" for suffix in SPLIT_SUFFIXES if (root / f"{name}{suffix}").is_file()]
    if len(found) > 1:
        raise ValueError(f"{found[0]} and {found[1].name} are both there: keep one of them")
    return found[0] if found else None


def _splits(files: Sequence[Path | None], reading: Reading) -> Splits:
    """Return the splits of the files of training, validation and test; only the first must be there."""
    opened = [None if path is None else _open_file(path, reading) for path in files]
    assert opened[0] is not None, "the training images come first"
    train, labels = opened[0]
    classes: tuple[str, ...] = ()
    if labels is not None:
        highest = max(int(part[1].max()) for part in opened if part is not None and part[1] is not None)
        classes = tuple(str(number) for number in range(highest + 1))
    sources: list[ArraySource | None] = []
    for part in opened:
        if part is None:
            sources.append(None)
            continue
        images, numbers = part
        if images.channels != train.channels and {images.channels, train.channels} != {1, 3}:
            raise ValueError(
                f"{images.path} holds images of {images.channels} channels, and {train.path} of {train.channels}: "
                f"the splits of a data set share their channels"
            )
        if labels is not None and numbers is None:
            raise ValueError(f"{train.path} has labels, and {images.path} has none: add {_labels_path(images.path)}")
        sources.append(ArraySource(images, None if labels is None else numbers, classes))
    assert sources[0] is not None, "the training images come first"
    return with_validation(sources[0], *sources[1:])


def _open_file(path: Path, reading: Reading) -> tuple[ImageArray, np.ndarray | None]:
    """Open a file of many images, with labels where there are some."""
    suffix, values = path.suffix.lower(), None
    if suffix == ".npy":
        images = open_npy(path, reading.layout)
    elif suffix == ".npz":
        images, values = open_npz(path, reading.layout)
    elif suffix in TIFF_SUFFIXES:
        images = open_tiff(path, reading.pages)
    else:
        raise ValueError(f"{path} is none of {' '.join(SPLIT_SUFFIXES)}: save the images as one of these")
    beside, where = _labels_path(path), str(path)
    if values is None and beside.is_file():
        where = str(beside)
        with readable(beside):
            values = np.load(beside, allow_pickle=False)
    return images, None if values is None else checked_labels(values, len(images), where)


def _labels_path(path: Path) -> Path:
    return path.with_name(f"{path.stem}_labels.npy")


def open_image_file(path: Path, reading: Reading) -> ImageArray:
    """Open a file of a folder. Raises UnreadableImageError where it cannot be read."""
    if path.suffix.lower() == ".npy":
        return open_npy(path, reading.layout, single=True)
    return open_tiff(path, reading.pages, single=True)


def find_arrays(root: Path) -> FileNames:
    """Return the .npy and TIFF files below a folder, sorted, relative to it; names that start with a dot are passed over.

    Raises:
        ValueError: There is none.
    """
    found, others = with_suffix(walk(root), IMAGE_SUFFIXES)
    if not len(found):
        raise ValueError(
            f"{root} holds no array: {others}; data=arrays wants train.npy (or .npz, .tif), or files of one image each "
            f"({' '.join(IMAGE_SUFFIXES)}), or a file as data.root"
        )
    return found


def _open_folder(root: Path, reading: Reading) -> ArrayFolder:
    names = find_arrays(root)
    reading, channels = _agreed(root, names, reading)
    counts = [_count(root / name, reading) for name in names] if reading.pages == "images" else None
    return ArrayFolder(root, names, reading, channels, counts)


def _agreed(root: Path, names: FileNames, reading: Reading) -> tuple[Reading, int]:
    """Look at some of the files, and return how all are read, and how many channels most have.

    A file whose shape does not tell its channels is read as the others.

    Raises:
        ValueError: None of those looked at can be read, or they tell different layouts.
    """
    opened, error = [], None
    for number in evenly_spaced(len(names), IMAGES_DECODED):
        try:
            opened.append(open_image_file(root / names[number], reading))
        except UnreadableImageError as unreadable:
            error = unreadable
    if not opened:
        raise ValueError(f"none of the files looked at can be read: {error}")
    told = {
        f"N{images.axes}": images.path
        for images in opened
        if images.path.suffix.lower() == ".npy" and "C" in images.axes
    }
    if len(told) > 1:
        said = " and ".join(f"{layout[1:]} of {path}" for layout, path in told.items())
        raise ValueError(f"the shapes tell {said}: say data.layout=NHWC or data.layout=NCHW")
    ((channels, _),) = Counter(images.channels for images in opened).most_common(1)
    return replace(reading, layout=next(iter(told), reading.layout)), channels


def _count(path: Path, reading: Reading) -> int:
    try:
        return len(open_image_file(path, reading))
    except UnreadableImageError:  # counted as one, which is named when it is met
        return 1
