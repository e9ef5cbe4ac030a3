"""Files to uint8 tensors."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.io import decode_jpeg, read_file

EXTENSIONS = frozenset(
    [".jpg", ".jpeg", ".jpe", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".jp2"]
)
"""What is taken for an image in a folder, in any case."""

JPEG = frozenset([".jpg", ".jpeg", ".jpe"])

# Since torchvision 0.29 each call warns that TorchCodec will take over; this module is the only place to change.
warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"torchvision\.io")


class UnreadableImageError(ValueError):
    """A file that is no image, or a damaged one."""


def read_image(path: str | Path) -> Tensor:
    """Read an image upright: uint8 (1, H, W) where it is greyscale, else (3, H, W) RGB.

    torchvision decodes JPEG, twice as fast; Pillow the rest, and what torchvision refuses (CMYK, damaged headers). PNG is
    Pillow's too: torchvision 0.29 ends the process on one whose checksum is wrong.

    Raises:
        UnreadableImageError: Neither can.
    """
    path = Path(path)
    if path.suffix.lower() in JPEG:
        try:
            image: Tensor = decode_jpeg(read_file(str(path)), apply_exif_orientation=True)
            if image.shape[0] in (1, 3):
                return image
        except (RuntimeError, ValueError):
            pass  # Pillow may be able to, or says why not
    try:
        with Image.open(path) as opened:
            upright = ImageOps.exif_transpose(opened)
            if upright.mode.startswith(("I", "F")):  # 16 and 32 bits: Pillow's own conversion would clip them
                array = np.asarray(upright, dtype=np.float64)
                top = 1.0 if upright.mode == "F" else 65535.0
                return torch.from_numpy((array / top * 255).clip(0, 255).round().astype(np.uint8)).unsqueeze(0)
            grey = upright.mode in ("1", "L", "LA")
            array = np.array(upright.convert("L" if grey else "RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableImageError(f"{path} cannot be read as an image ({error})") from None
    return torch.from_numpy(array).unsqueeze(0) if grey else torch.from_numpy(array).permute(2, 0, 1)


def read_size(path: str | Path) -> tuple[int, int]:
    """Return (H, W), upright, from the header alone.

    Raises:
        UnreadableImageError: The header cannot be read.
    """
    try:
        with Image.open(path) as opened:
            width, height = opened.size
            # Pillow turns a TIFF's size itself.
            orientation = 1 if opened.format == "TIFF" else opened.getexif().get(0x0112, 1)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableImageError(f"{path} cannot be read as an image ({error})") from None
    return (width, height) if orientation in (5, 6, 7, 8) else (height, width)


def to_channels(image: Tensor, channels: int) -> Tensor:
    """Turn grey into RGB or RGB into grey (ITU-R 601 luma): uint8 (1 or 3, H, W) to (channels, H, W)."""
    if image.shape[0] == channels:
        return image
    if image.shape[0] == 1:
        return image.expand(channels, -1, -1)
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    return (image * weights).sum(0, keepdim=True).round().to(torch.uint8)
