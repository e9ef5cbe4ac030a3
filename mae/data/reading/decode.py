"""Encoded images to tensors, upright, at full or reduced scale."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import simplejpeg
import torch
from PIL import Image
from PIL.ImageFile import ImageFile
from torch import Tensor

from mae.data.reading.missing import filled, missing_in_picture

EXTENSIONS = frozenset(
    [".jpg", ".jpeg", ".jpe", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".jp2"]
)
"""What is taken for an image in a folder, in any case."""

REDUCTIONS = (8, 4, 2)
"""A JPEG is decoded at an eighth, a quarter or half of its size for less than the whole: its blocks are of 8x8."""
MOST_PIXELS = 2 * 89_478_485
"""Pixels that are decoded at most: a small file can claim to hold more than memory does. Pillow's own limit."""

ORIENTATION = 0x0112  # the number of the tag in EXIF


class UnreadableImageError(ValueError):
    """A file that is no image, or a damaged one."""


class Picture(Protocol):
    """An image that was opened: its size is known, its pixels may still be encoded."""

    size: tuple[int, int]
    """(H, W), upright."""
    reducible: bool
    """Whether it costs less to decode at reduced scale."""
    missing: Tensor | None
    """(H, W) bool, upright: pixels that are not there, filled with the mean of the others. Known once decoded; None if none."""

    def decode(self, reduce: int = 1) -> Tensor:
        """Return (C, ceil(H / reduce), ceil(W / reduce)), upright.

        uint8; or float32 where it holds more than 8 bits, with 16 bits in [0, 1] and floats as they are.

        Args:
            reduce: 1, or one of ``REDUCTIONS`` where the picture is ``reducible``.

        Raises:
            UnreadableImageError: It cannot be decoded.
        """
        ...


class TensorPicture:
    """Pixels that need no decoding.

    Args:
        image: (C, H, W).
        missing: As ``Picture`` has it.
    """

    reducible = False

    def __init__(self, image: Tensor, missing: Tensor | None = None) -> None:
        self.image = image
        self.missing = missing
        self.size = (image.shape[-2], image.shape[-1])

    def decode(self, reduce: int = 1) -> Tensor:
        """Return the pixels."""
        return self.image


class EncodedPicture:
    """An encoded image; its header is read at once.

    simplejpeg (libjpeg-turbo) decodes JPEG, half as long again as fast as Pillow; Pillow the rest, and what simplejpeg refuses
    (CMYK, damaged data).

    Args:
        data: The content of a file.
        name: What a person calls it.

    Raises:
        UnreadableImageError: The header cannot be read.
    """

    def __init__(self, data: bytes, name: str) -> None:
        self.data = data
        self.name = name
        self.orientation = 1
        self.missing: Tensor | None = None
        self.mode: str | None = None  # what simplejpeg is asked for; None leaves all to Pillow
        if data[:2] == b"\xff\xd8":
            try:
                height, width, colour, _ = simplejpeg.decode_jpeg_header(data)
            except ValueError:
                pass  # Pillow may be able to, or says why not
            else:
                if b"Exif" in data[:65536]:
                    self.orientation = _orientation(data)
                self.size = (width, height) if self.orientation >= 5 else (height, width)
                # "Gray", "YCbCr" or "RGB"; those of four channels are for print.
                self.mode = {"Gray": "GRAY", "CMYK": None, "YCCK": None}.get(colour, "RGB")
        self.reducible = self.mode is not None
        if self.mode is None:
            self.size, self.orientation = _pillow_header(data, name)

    def opened(self) -> Image.Image:
        """Return the image as Pillow sees it, not decoded."""
        return _open(self.data)

    def decode(self, reduce: int = 1) -> Tensor:
        """Return the pixels, see ``Picture``."""
        height, width = (-(-side // reduce) for side in self.size)
        if height * width > MOST_PIXELS:
            raise UnreadableImageError(
                f"{self.name} cannot be read as an image (it claims {self.size[1]:,} x {self.size[0]:,} pixels, "
                f"more than the {MOST_PIXELS:,} that are safe to decode)"
            )
        if self.mode is not None:
            stored = (height, width) if self.orientation < 5 else (width, height)
            try:
                array = simplejpeg.decode_jpeg(
                    self.data, self.mode, min_height=stored[0], min_width=stored[1], min_factor=1
                )
                return turned(torch.from_numpy(array).permute(2, 0, 1), self.orientation)
            except ValueError:
                pass  # Pillow puts up with more, or says why not
        image, missing = _decode_by_pillow(self.data, self.name)
        if missing is not None:
            image = filled_picture(image, missing, self.name)
            self.missing = turned(missing, self.orientation)
        return _reduced(turned(image, self.orientation), reduce)


def read_size(path: str | Path) -> tuple[int, int]:
    """Return (H, W), upright, from the header alone.

    Raises:
        UnreadableImageError: The header cannot be read.
    """
    return _pillow_header(Path(path), str(path))[0]


def read_bytes(path: str | Path) -> bytes:
    """Return the content of a file.

    Raises:
        UnreadableImageError: It cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UnreadableImageError(f"{path} cannot be read ({error.strerror})") from None


def to_channels(image: Tensor, channels: int) -> Tensor:
    """Turn grey into RGB or RGB into grey (ITU-R 601 luma): (C, H, W) to (channels, H, W), of the same dtype.

    Raises:
        ValueError: C is another number, and neither 1 nor 3 channels are wanted.
    """
    if image.shape[0] == channels:
        return image
    if image.shape[0] == 1 and channels == 3:
        return image.expand(3, -1, -1)
    if image.shape[0] != 3 or channels != 1:
        raise ValueError(
            f"an image of {image.shape[0]} channels cannot stand beside images of {channels}: only grey and colour are mixed"
        )
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    grey = (image * weights).sum(0, keepdim=True)
    return grey.round().to(torch.uint8) if image.dtype == torch.uint8 else grey


def to_bits(image: Tensor, bits: int) -> Tensor:
    """Return an image as uint8 where ``bits`` is 8, else as float32; full scale is 255 in the one, 1 in the other."""
    if bits == 8:
        return image if image.dtype == torch.uint8 else (image * 255).round().clamp(0, 255).to(torch.uint8)
    return image.float() / 255 if image.dtype == torch.uint8 else image


def _pillow_header(file: bytes | Path, name: str) -> tuple[tuple[int, int], int]:
    """Return (H, W), upright, and the EXIF orientation that is still to be heeded."""
    with by_pillow(file, name) as opened:
        width, height = opened.size
        # Pillow turns a TIFF itself, and reads all of a PNG to see whether EXIF stands at its end.
        heed = opened.format != "TIFF" and (opened.format != "PNG" or "exif" in opened.info)
        orientation = opened.getexif().get(ORIENTATION, 1) if heed else 1
    orientation = orientation if orientation in range(1, 9) else 1
    return ((width, height) if orientation >= 5 else (height, width)), orientation


def filled_picture(image: Tensor, missing: Tensor, name: str) -> Tensor:
    """Return an image (C, H, W) whose missing pixels (H, W) are filled.

    Raises:
        UnreadableImageError: No pixel is there.
    """
    if missing.all():
        raise UnreadableImageError(
            f"{name} cannot be read as an image (none of its pixels is there: all are not finite, no data or transparent)"
        )
    return filled(image, missing)


def _decode_by_pillow(data: bytes, name: str) -> tuple[Tensor, Tensor | None]:
    """Return the pixels (C, H, W) as stored, and which of them are missing (H, W), where some are."""
    with by_pillow(data, name) as opened:
        found = missing_in_picture(opened)
        missing = None if found is None else torch.from_numpy(found)
        if opened.mode.startswith(("I", "F")):  # 16 and 32 bits: Pillow's own conversion would clip them
            top = 1.0 if opened.mode == "F" else 65535.0
            return torch.from_numpy(np.asarray(opened, dtype=np.float32) / top).unsqueeze(0), missing
        grey = opened.mode in ("1", "L", "LA")
        array = np.array(opened.convert("L" if grey else "RGB"))
    return (torch.from_numpy(array).unsqueeze(0) if grey else torch.from_numpy(array).permute(2, 0, 1)), missing


@contextmanager
def by_pillow(file: bytes | Path, name: str) -> Iterator[ImageFile]:
    """Open an image for the block; whatever goes wrong within is an UnreadableImageError."""
    try:
        with _open(file) as opened:
            yield opened
    except Exception as error:  # damaged files raise almost anything, struct.error and IndexError among it
        raise _unreadable(name, error) from None


def _open(file: bytes | Path) -> ImageFile:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sizes, which are checked here, and of odd metadata
        return Image.open(io.BytesIO(file) if isinstance(file, bytes) else file)


def _unreadable(name: str, error: Exception) -> UnreadableImageError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    if "cannot identify image file" in reason:  # the rest is the address of a buffer
        reason = "of no known format"
    return UnreadableImageError(f"{name} cannot be read as an image ({reason})")


def _orientation(data: bytes) -> int:
    """Return the EXIF orientation, 1 to 8; 1, upright, where it is none of them."""
    try:
        with _open(data) as opened:
            orientation = opened.getexif().get(ORIENTATION, 1)
    except Exception:
        return 1
    return orientation if orientation in range(1, 9) else 1


def turned(image: Tensor, orientation: int) -> Tensor:
    """Return an image (C, H, W), or a map (H, W), as its EXIF orientation says it is to be shown."""
    if orientation >= 5:
        image = image.transpose(-1, -2)
    flipped = {2: (-1,), 3: (-1, -2), 4: (-2,), 6: (-1,), 7: (-1, -2), 8: (-2,)}.get(orientation, ())
    return image.flip(flipped) if flipped else image


def _reduced(image: Tensor, reduce: int) -> Tensor:
    """Return a whole image at the reduced scale that was asked for; averages, as a JPEG decoder gives."""
    if reduce == 1:
        return image
    size = tuple(-(-side // reduce) for side in image.shape[-2:])
    small = torch.nn.functional.interpolate(image.float().unsqueeze(0), size=size, mode="area").squeeze(0)
    return small.round().to(torch.uint8) if image.dtype == torch.uint8 else small
