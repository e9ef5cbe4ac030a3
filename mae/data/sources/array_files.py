"""Images in .npy and .npz files, with any number of channels, read one image at a time."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from mae.data.reading.decode import TensorPicture, UnreadableImageError, filled_picture
from mae.data.reading.missing import missing_in_array

ORDER = "NCHW"
"""The letters of axes: images, channels, rows and columns."""
LAYOUTS = ("NHW", "NHWC", "NCHW")
IMAGE_KEYS = ("images", "x", "data")
LABEL_KEYS = ("labels", "y")
MOST_CLASSES = 100_000
IN_MEMORY = 2**30
"""Bytes of a file that the machine is trusted to keep in memory once it was read."""


class ImageArray(ABC):
    """The images of one file, in whatever order its axes stand.

    Args:
        path: The file.
        shape: Of the array that it holds.
        dtype: Of its numbers.
        axes: A letter of ``ORDER`` for each axis. N and C may stand several times, or not at all: a microscope's (T, Z, C, H, W)
            is NNCHW, where each plane of each time is an image.

    Raises:
        UnreadableImageError: There is no image in it, or its numbers are not those of images.
    """

    in_memory = False
    nodata: float | None = None
    """The value that stands for no data, where the file names one."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], axes: str) -> None:
        if dtype.kind not in "biuf":
            raise UnreadableImageError(
                f"{path} holds {dtype.name}: images are of whole numbers or floats, so save it as one of these"
            )
        if 0 in shape:
            raise UnreadableImageError(f"{path} holds no image: its shape is {shape}")
        self.path = path
        self.shape = shape
        self.dtype = dtype
        self.axes = axes
        sizes = {letter: [side for side, axis in zip(shape, axes, strict=True) if axis == letter] for letter in ORDER}
        self.counts = tuple(sizes["N"])
        self.channels = math.prod(sizes["C"])
        self.size = (sizes["H"][0], sizes["W"][0])

    def __len__(self) -> int:
        """N."""
        return math.prod(self.counts)

    @abstractmethod
    def planes(self, place: tuple[int, ...]) -> np.ndarray:
        """Return one image (C..., H, W); its place is counted along each axis N."""

    def picture(self, index: int) -> TensorPicture:
        """Return an image. Raises UnreadableImageError where it cannot be read."""
        name = f"{self.path} image {index}" if len(self) > 1 else str(self.path)
        with readable(name):
            place = tuple(int(number) for number in np.unravel_index(index, self.counts))
            return to_picture(self.planes(place).reshape(-1, *self.size), name, self.nodata)


class MappedArray(ImageArray):
    """An array that lies in a file as in memory, and may be larger than that: only what is read of it is loaded.

    Processes share what the system has loaded. A worker is handed the place of the array, not its content.
    """

    def __init__(self, path: Path, mapped: np.memmap[Any, Any], axes: str) -> None:
        super().__init__(path, mapped.shape, mapped.dtype, axes)
        self.offset = mapped.offset
        self.order: Literal["C", "F"] = "C" if mapped.flags.c_contiguous else "F"
        self.in_memory = mapped.nbytes <= IN_MEMORY
        self._mapped: np.ndarray | None = mapped

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_mapped": None}

    def planes(self, place: tuple[int, ...]) -> np.ndarray:
        """Return one image (C..., H, W)."""
        if self._mapped is None:
            self._mapped = np.memmap(self.path, self.dtype, "r", self.offset, self.shape, self.order)
        return arranged(self._mapped, self.axes, place)


class HeldArray(ImageArray):
    """An array in memory, which worker processes share: torch hands them the memory of a tensor, where it copies numpy's."""

    in_memory = True

    def __init__(self, path: Path, array: np.ndarray, axes: str) -> None:
        super().__init__(path, array.shape, array.dtype, axes)
        plain = np.float64 if array.dtype.kind == "f" and array.itemsize > 8 else array.dtype.newbyteorder("=")
        self.tensor = torch.from_numpy(array.astype(plain, copy=False))

    def planes(self, place: tuple[int, ...]) -> np.ndarray:
        """Return one image (C..., H, W)."""
        return arranged(self.tensor.numpy(), self.axes, place)


def open_npy(path: Path, layout: str | None, *, single: bool = False) -> ImageArray:
    """Open a .npy file, see ``array_axes``. Raises UnreadableImageError where it cannot be read."""
    with readable(path):
        mapped = np.lib.format.open_memmap(path, mode="r")
    return MappedArray(path, mapped, array_axes(mapped.shape, layout, path, single=single))


def open_npz(path: Path, layout: str | None) -> tuple[ImageArray, np.ndarray | None]:
    """Open a .npz file, which is unpacked into memory: its images, and its labels where it has some.

    Raises:
        UnreadableImageError: It cannot be read, or none of its arrays is known to be the images.
    """
    with readable(path), np.load(path, allow_pickle=False) as content:
        names = list(content.files)
        images = [name for name in names if name in IMAGE_KEYS] or (names if len(names) == 1 else [])
        labels = [name for name in names if name in LABEL_KEYS]
        if len(images) != 1 or len(labels) > 1:
            raise UnreadableImageError(
                f"{path} holds the arrays {', '.join(names) or 'none'}: name one of them {', '.join(IMAGE_KEYS[:-1])} or "
                f"{IMAGE_KEYS[-1]}, and the labels, if there are any, {' or '.join(LABEL_KEYS)}"
            )
        array = content[images[0]]
        numbers = content[labels[0]] if labels else None
    return HeldArray(path, array, array_axes(array.shape, layout, path)), numbers


def array_axes(shape: tuple[int, ...], layout: str | None, path: Path, *, single: bool = False) -> str:
    """Return a letter for each axis of an array.

    Three axes are (N, H, W). Of four the first is N, and C is the first or the last of the others: beside two that are equal,
    as in squares, the third one, and else the smallest. Where the file is a single image there is no N: two axes are (H, W).

    Args:
        shape: Of the array.
        layout: One of ``LAYOUTS``, which says it instead; N is passed over in a single image, and C where that is grey.
        path: For messages.
        single: Whether the file holds one image.

    Raises:
        UnreadableImageError: The axes are too few, too many or too alike.
    """
    wanted = layout and layout.replace("N", "", 1 if single else 0)
    if single and len(shape) == 2:
        return "HW"
    if wanted and len(wanted) == len(shape):
        return wanted
    if not wanted and not single and len(shape) == 3:
        return "NHW"
    if not wanted and len(shape) == (3 if single else 4):
        return ("" if single else "N") + _channels_told(shape, path)
    if wanted:
        expected = f"data.layout={layout} is of {len(wanted)} axes{', an image a file' if single else ''}"
    elif single:
        expected = "an image is (H, W), (H, W, C) or (C, H, W); for a file of many give it as data.root, not its folder"
    else:
        expected = "a file of images is (N, H, W), (N, H, W, C) or (N, C, H, W); of files of one image give the folder"
    raise UnreadableImageError(f"{path} holds an array of shape {shape}, and {expected}")


def _channels_told(shape: tuple[int, ...], path: Path) -> str:
    first, middle, last = shape[-3:]
    alike = len({first, middle, last}) < 3
    if middle == last != first or (not alike and first < min(middle, last)):
        return "CHW"
    if first == middle != last or (not alike and last < min(first, middle)):
        return "HWC"
    raise UnreadableImageError(
        f"{path} holds an array of shape {shape}, which does not tell the channels from the sides: say data.layout=NHWC or "
        f"data.layout=NCHW"
    )


def to_picture(array: np.ndarray, name: str, nodata: float | None = None) -> TensorPicture:
    """Return an image as uint8 where it is of bytes or truths, else as float32: 16 bits in [0, 1], others as they are.

    Args:
        array: The image (C, H, W).
        name: For messages.
        nodata: The value that stands for no data.

    Raises:
        UnreadableImageError: No pixel is there, see ``missing_in_array``.
    """
    found = missing_in_array(array, nodata)
    if array.dtype == np.uint8:
        pixels = torch.from_numpy(np.array(array))
    elif array.dtype == np.bool_:
        pixels = torch.from_numpy(array.astype(np.uint8) * np.uint8(255))
    else:
        with np.errstate(over="ignore"):
            values = array.astype(np.float32)
        if array.dtype.kind == "u" and array.dtype.itemsize == 2:
            values /= 65535
        pixels = torch.from_numpy(values)
    if found is None:
        return TensorPicture(pixels)
    missing = torch.from_numpy(found)
    return TensorPicture(filled_picture(pixels, missing, name), missing)


def checked_labels(values: np.ndarray, count: int, where: str) -> np.ndarray:
    """Return labels (N,) as int64.

    Args:
        values: (N,) or (N, 1).
        count: N that the images have.
        where: The file, for messages.

    Raises:
        ValueError: They are no whole numbers, below zero, too many classes, or not one for each image.
    """
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise ValueError(f"the labels in {where} have the shape {values.shape}: give one number an image")
    if values.dtype.kind not in "iu":
        raise ValueError(
            f"the labels in {where} are {values.dtype.name}: give whole numbers from 0, one for each class"
        )
    if len(values) != count:
        raise ValueError(f"{where} has {len(values):,} labels for {count:,} images: give one each")
    if values.min() < 0:
        raise ValueError(f"{where} has the label {values.min()}: number the classes from 0, or leave all labels out")
    if values.max() >= MOST_CLASSES:
        raise ValueError(f"{where} has the label {values.max()}: number the classes from 0, {MOST_CLASSES:,} at most")
    return values.astype(np.int64)


@contextmanager
def readable(name: Path | str) -> Iterator[None]:
    """Turn what a damaged file raises into an UnreadableImageError that names it; a missing extra is no damage."""
    try:
        yield
    except (UnreadableImageError, ImportError):
        raise
    except Exception as error:  # damaged files raise almost anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnreadableImageError(f"{name} cannot be read ({reason})") from None


def arranged(array: np.ndarray, axes: str, place: tuple[int, ...] = ()) -> np.ndarray:
    """Return a view with the axes in order, (N..., C..., H, W), or that part of it which lies at a place along the first ones."""
    view = array.transpose(sorted(range(len(axes)), key=lambda axis: ORDER.index(axes[axis])))
    return np.asarray(view[place])
