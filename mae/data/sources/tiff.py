"""Images in TIFFs: pages and samples of any meaning, compressed or not."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from mae.data.reading.decode import UnreadableImageError
from mae.data.reading.missing import NODATA, parse_nodata
from mae.data.sources.array_files import ImageArray, MappedArray, arranged, readable

TIFF_SUFFIXES = (".tif", ".tiff")
UNNAMED = "IQ"
"""What tifffile calls an axis of pages that nobody has named."""


class TiffPages(ImageArray):
    """A TIFF whose pages are compressed or in tiles: those of an image are decoded when it is asked for.

    Args:
        path: As ``ImageArray``.
        series: tifffile's series of pages.
        axes: As ``ImageArray``; the pages hold the last of them.
        keep: Whether the file stays open; one of a folder of thousands may not.
    """

    def __init__(self, path: Path, series: Any, axes: str, *, keep: bool) -> None:
        super().__init__(path, tuple(series.shape), np.dtype(series.dtype), axes)
        page = tuple(series.keyframe.shape)
        before = self.shape[: len(self.shape) - len(page)]
        if before + page != self.shape or math.prod(before) != len(series.pages):
            raise UnreadableImageError(f"{path} does not hold its axes {series.axes} in pages: save it as .npy")
        self.page_axes = axes[len(before) :]
        # Numbers of pages, arranged as (N..., C...).
        self.pages = arranged(np.arange(len(series.pages)).reshape(before), axes[: len(before)])
        self.along = axes[: len(before)].count("N")
        self.keep = keep
        self._file: Any = None
        self._process = 0

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}

    def planes(self, place: tuple[int, ...]) -> np.ndarray:
        """Return one image (C..., H, W)."""
        numbers = np.asarray(self.pages[place[: self.along]])
        file = self._open()
        try:
            series = file.series[0]
            pages = np.stack([series.pages[int(number)].asarray() for number in numbers.ravel()])
        finally:
            if not self.keep:
                file.close()
                self._file = None
        together = pages.reshape(*numbers.shape, *pages.shape[1:])
        return arranged(together, "C" * numbers.ndim + self.page_axes, place[self.along :])

    def _open(self) -> Any:
        # Forked processes would share the place in an open file, and read past each other.
        if self._file is None or self._process != os.getpid():
            self._file, self._process = _tifffile().TiffFile(self.path), os.getpid()
        return self._file


def open_tiff(path: Path, pages: str | None, *, single: bool = False) -> ImageArray:
    """Open the first series of a TIFF, see ``tiff_axes``.

    Raises:
        UnreadableImageError: It cannot be read.
        ImportError: tifffile is not installed.
    """
    tifffile = _tifffile()
    with readable(path), tifffile.TiffFile(path) as file:
        series = file.series[0]
        axes = tiff_axes(series.axes, pages, path, single=single)
        images: ImageArray
        if series.dataoffset is None:
            images = TiffPages(path, series, axes, keep=not single)
        else:
            dtype = np.dtype(series.dtype).newbyteorder(file.byteorder)
            images = MappedArray(path, np.memmap(path, dtype, "r", series.dataoffset, tuple(series.shape)), axes)
        tag = series.keyframe.tags.get(NODATA)
        images.nodata = None if tag is None else parse_nodata(tag.value)
        return images


def tiff_axes(names: str, pages: str | None, path: Path, *, single: bool = False) -> str:
    """Return a letter for each axis of a TIFF: Y and X are H and W, C and S (samples) are C.

    All others (time, depth, ...) are N; pages without a name are C where the file is a single image.

    Args:
        names: tifffile's names.
        pages: ``images`` or ``channels``, which is what those others are then.
        path: For messages.
        single: Whether the file holds one image.

    Raises:
        UnreadableImageError: There are no rows and columns.
    """
    if names.count("Y") != 1 or names.count("X") != 1:
        raise UnreadableImageError(
            f"{path} has the axes {names}, which are not those of images: Y and X must be among them"
        )
    other = {"images": "N", "channels": "C", None: "N"}[pages]
    known = {"Y": "H", "X": "W", "C": "C", "S": "C"}
    if single and pages is None:
        known |= dict.fromkeys(UNNAMED, "C")
    return "".join(known.get(name, other) for name in names)


def _tifffile() -> Any:
    try:
        import tifffile
    except ImportError:
        raise ImportError(
            "data=arrays reads TIFF with the extra 'tiff', which is not installed: pip install -e '.[tiff]'"
        ) from None
    return tifffile
