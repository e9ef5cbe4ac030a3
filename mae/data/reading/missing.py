"""Pixels that are not there: not a number, of a value that stands for no data, or fully transparent.

They are filled with the mean of the others, so that nothing of what stands in their place reaches a model.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

NODATA = 42113
"""The TIFF tag in which GDAL writes, as text, the value that stands for no data."""


def parse_nodata(text: object) -> float | None:
    """Return the value of a ``NODATA`` tag; None where there is none that is a number (NaN is known without it)."""
    try:
        value = float(str(text).strip().strip("\0"))
    except ValueError:
        return None
    return None if math.isnan(value) else value


def missing_in_array(array: np.ndarray, nodata: float | None) -> np.ndarray | None:
    """Return which pixels (H, W) of an array (C, H, W) are missing; None where all are there.

    A pixel is, where a channel of it is no finite number, as float32, or of the value that stands for no data. Of images of 8 bits
    all channels must be of that value: it is 0 or 255 there, which single channels of a picture are too.
    """
    missing = np.zeros(array.shape[-2:], dtype=bool)
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):
            missing |= ~np.isfinite(array.astype(np.float32, copy=False)).all(axis=0)
    if nodata is not None:
        equal = array == _as(nodata, array.dtype)
        missing |= equal.all(axis=0) if array.dtype.itemsize == 1 else equal.any(axis=0)
    return missing if missing.any() else None


def missing_in_picture(opened: Image.Image) -> np.ndarray | None:
    """Return which pixels (H, W) of an image that Pillow opened are missing; None where all are there."""
    alpha = None
    if "A" in opened.getbands():
        alpha = np.asarray(opened.getchannel("A"))
    elif opened.mode.startswith("I") and isinstance(opened.info.get("transparency"), int):
        alpha = np.asarray(opened) != opened.info["transparency"]
    elif "transparency" in opened.info and opened.mode in ("1", "L", "P", "RGB"):
        alpha = np.asarray(opened.convert("RGBA").getchannel("A"))
    missing = None if alpha is None else alpha == 0
    nodata = parse_nodata(getattr(opened, "tag_v2", {}).get(NODATA))
    if nodata is not None or opened.mode == "F":
        pixels = np.atleast_3d(np.asarray(opened)).transpose(2, 0, 1)
        found = missing_in_array(pixels[: len(pixels) - ("A" in opened.getbands())], nodata)
        missing = found if missing is None else missing if found is None else missing | found
    return missing if missing is not None and missing.any() else None


def filled(image: Tensor, missing: Tensor) -> Tensor:
    """Return an image (C, H, W) whose missing pixels (H, W) have the mean of the others, channel by channel."""
    there = image[:, ~missing].double()
    mean = there.mean(dim=1)
    image = image.clone()
    image[:, missing] = (mean.round() if image.dtype == torch.uint8 else mean).to(image.dtype).unsqueeze(1)
    return image


def _as(value: float, dtype: np.dtype[Any]) -> np.ndarray:
    """Return a value as an array of this type holds it; one that it cannot hold equals none of its numbers."""
    if dtype.kind == "b":
        return np.array(bool(value)) if value in (0, 1) else np.array(np.nan)
    if dtype.kind in "iu" and not (value.is_integer() and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max):
        return np.array(np.nan)
    with np.errstate(over="ignore"):
        return np.array(value).astype(dtype)
