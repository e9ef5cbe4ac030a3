"""Images as they are stored in shards: their own bytes, or smaller and encoded anew."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
import simplejpeg
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mae.data.reading.decode import REDUCTIONS, EncodedPicture, Picture
from mae.data.reading.transforms import Window, cut_missing
from mae.data.shards.tar_members import ARRAY
from mae.data.statistics import unit_pixels

QUALITY = 92
"""Of JPEGs that are encoded anew: what is lost is far below what the downscaling took."""
SUFFIXES = {
    "JPEG": ".jpg",
    "MPO": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "GIF": ".gif",
    "BMP": ".bmp",
    "TIFF": ".tif",
    "PPM": ".ppm",
    "JPEG2000": ".jp2",
}
"""By Pillow's names of the formats that are stored as they are."""
PHOTOGRAPHS = (".jpg", ".webp", ".jp2")
"""What lossy formats hold is stored as JPEG; the rest stays without loss."""


class Content(NamedTuple):
    """The bytes of a file, and the suffix that tells its format."""

    data: bytes
    suffix: str


def stored(picture: Picture, short_side: int | None, quality: int = QUALITY) -> Content:
    """Return a picture as it goes into a shard.

    Encoded ones keep their bytes, unless they are larger than ``short_side``. What is encoded anew is a JPEG where it came from a
    lossy format, a PNG where it has 8 bits and is grey or in colour, else an array. Missing pixels stay so: transparent in a PNG,
    which then stands for a JPEG too, and NaN in an array of floats.

    Args:
        picture: Upright afterwards, where it is encoded anew.
        short_side: Pixels that the shorter side has at most; None keeps the size.
        quality: Of JPEGs.

    Raises:
        UnreadableImageError: It cannot be decoded.
    """
    own = content_of(picture) if isinstance(picture, EncodedPicture) else None
    if short_side is None or min(picture.size) <= short_side:
        return own or encoded(picture.decode(), missing=picture.missing)
    image, missing = shrunk(picture, short_side), picture.missing
    if missing is not None:
        missing = ~cut_missing(missing, Window(0, 0, *picture.size), (image.shape[-2], image.shape[-1]))
        if missing.all():  # so few pixels are there that none would be left: the picture keeps its size
            return own or encoded(picture.decode(), missing=picture.missing)
    return encoded(image, quality if own is not None and own.suffix in PHOTOGRAPHS else None, missing)


def content_of(picture: EncodedPicture) -> Content | None:
    """Return the bytes of an encoded picture with the suffix of what they are, whatever the file's name said.

    None where the format is none of those that are looked for in shards.
    """
    if picture.mode is not None:  # simplejpeg has read the header
        return Content(picture.data, ".jpg")
    with picture.opened() as opened:
        suffix = SUFFIXES.get(opened.format or "")
    return None if suffix is None else Content(picture.data, suffix)


def shrunk(picture: Picture, short_side: int) -> Tensor:
    """Return a picture with a shorter side of ``short_side``: (C, H, W), bicubic and antialiased.

    A JPEG is decoded at reduced scale where that is still twice as large as what is wanted: the rest is the filter's.
    """
    height, width = picture.size
    short = min(height, width)
    least = 2 * short_side
    reduce = next((factor for factor in REDUCTIONS if short >= factor * least), 1) if picture.reducible else 1
    image = picture.decode(reduce)
    size = (round(height * short_side / short), round(width * short_side / short))
    small = F.interpolate(image.unsqueeze(0), size=size, mode="bicubic", antialias=True, align_corners=False).squeeze(0)
    return small if image.dtype == torch.uint8 or not is_16_bit(image) else small.clamp(0, 1).mul(65535).round() / 65535


def is_16_bit(image: Tensor) -> bool:
    """Whether a float image (C, H, W) holds 16-bit numbers, divided by 65,535 as they are when decoded."""
    return torch.equal((image * 65535).round().clamp(0, 65535) / 65535, image)


def encoded(image: Tensor, quality: int | None = None, missing: Tensor | None = None) -> Content:
    """Encode an image (C, H, W): as JPEG where a quality is given and no pixel is missing (H, W), else without loss.

    Colour is kept at half resolution (4:2:0), as nearly all photographs have it: a sixth smaller, and faster to decode.
    """
    if image.dtype != torch.uint8 or image.shape[0] not in (1, 3):
        return _array(image if missing is None else unit_pixels(image).masked_fill(missing, torch.nan))
    if missing is not None:
        image, quality = torch.cat([image, 255 * (~missing).to(torch.uint8).unsqueeze(0)]), None
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    if quality is not None:
        grey = image.shape[0] == 1
        kinds = (
            {"colorspace": "GRAY", "colorsubsampling": "Gray"}
            if grey
            else {"colorspace": "RGB", "colorsubsampling": "420"}
        )
        return Content(simplejpeg.encode_jpeg(pixels, quality, **kinds), ".jpg")
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if image.shape[0] == 1 else pixels).save(
        file, format="PNG"
    )  # of two channels LA, of four RGBA
    return Content(file.getvalue(), ".png")


def _array(image: Tensor) -> Content:
    """Return a .npy of (C, H, W); floats that hold 16-bit numbers take half the room as such."""
    array = image.numpy()
    if array.dtype != np.uint8 and is_16_bit(image):
        array = (image * 65535).round().numpy().astype(np.uint16)
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return Content(file.getvalue(), ARRAY)
