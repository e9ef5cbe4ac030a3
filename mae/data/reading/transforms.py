"""Crops and flips on images as stored; pixels are standardised on the device."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from mae.data.reading.augment import RandAugment
from mae.data.reading.decode import REDUCTIONS, Picture


class Window(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


def resized_crop(image: Tensor, window: Window, size: tuple[int, int]) -> Tensor:
    """Cut a window out of an image (C, H, W), uint8 or float, and resize it, bicubic and antialiased.

    The same pixels as torchvision's ``resized_crop``, without its dispatch, which costs as much as the work on small images.
    """
    top, left, height, width = window
    if (height, width) == size:
        return image[:, top : top + height, left : left + width]
    part = image[:, top : top + height, left : left + width].unsqueeze(0)
    return F.interpolate(part, size=size, mode="bicubic", antialias=True, align_corners=False).squeeze(0)


def cut(picture: Picture, windows: Sequence[Window], size: tuple[int, int]) -> list[Tensor]:
    """Decode a picture once and cut windows out of it, each resized to ``size`` (H, W).

    Where all windows are twice as large as ``size`` or more, a JPEG is decoded at half its scale, a quarter or an eighth. The
    windows are then moved to that grid, by less than a 224th of their side where ``size`` is 224.
    """
    reduce = min((_reduction(window, size) for window in windows), default=1) if picture.reducible else 1
    image = picture.decode(reduce)
    return [resized_crop(image, Window(*(side // reduce for side in window)), size) for window in windows]


def cut_missing(missing: Tensor, window: Window, size: tuple[int, int]) -> Tensor:
    """Return which pixels are there of a window that is resized to ``size``, of those that are missing (H, W): (h, w) bool.

    One is there where at least half of what it is made of is.
    """
    top, left, height, width = window
    part = (~missing[top : top + height, left : left + width]).float()
    return F.interpolate(part[None, None], size=size, mode="area")[0, 0] >= 0.5


def _reduction(window: Window, size: tuple[int, int]) -> int:
    """Return how far an image may be reduced without losing a pixel of what is cut out of it."""
    return next(
        (factor for factor in REDUCTIONS if window.height >= factor * size[0] and window.width >= factor * size[1]), 1
    )


class TrainTransform:
    """Random resized crop and flip, as MAE pretrains, and RandAugment: (C, H, W) of any size to (C, *image_size), uint8.

    Args:
        image_size: (H, W) in pixels.
        min_scale: Smallest share of the image's area that a crop holds; the paper's is 0.2. With 1 the whole image is kept,
            less what the shape cuts off.
        flip: Whether half the images are mirrored left to right.
        rand_augment: Magnitude of RandAugment, for fine-tuning; 0 is off.
    """

    def __init__(
        self, image_size: tuple[int, int], min_scale: float = 0.2, flip: bool = True, rand_augment: int = 0
    ) -> None:
        if not 0 < min_scale <= 1:
            raise ValueError(f"data.min_scale={min_scale} is no share of an image's area: choose a number in (0, 1]")
        self.image_size = image_size
        self.min_scale = min_scale
        self.flip = flip
        self.augment = RandAugment(rand_augment) if rand_augment else None
        self.keeps_places = self.augment is None

    def draw(self, size: tuple[int, int], rng: random.Random) -> Window:
        """Draw a window of an image of ``size`` (H, W): area share in (min_scale, 1), aspect in (3/4, 4/3) of the wanted one."""
        height, width = size
        wanted = self.image_size[1] / self.image_size[0]
        if self.min_scale < 1:
            for _ in range(10):
                area = height * width * rng.uniform(self.min_scale, 1)
                aspect = wanted * math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
                w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
                if 0 < w <= width and 0 < h <= height:
                    return Window(rng.randint(0, height - h), rng.randint(0, width - w), h, w)
        # Nothing fitted (a very long image), or nothing is to be cut: the largest centre crop of the wanted shape.
        h, w = _largest(height, width, wanted)
        return Window((height - h) // 2, (width - w) // 2, h, w)

    def finish(self, image: Tensor, rng: random.Random) -> Tensor:
        """Flip and augment what was cut out."""
        image = image.flip(-1) if self.flip and rng.random() < 0.5 else image
        return image if self.augment is None else self.augment(image, rng)


class EvalTransform:
    """The largest centre crop of the wanted shape, resized: the same pixels in every run.

    Args:
        image_size: (H, W) in pixels.
        share: Side of the crop as a share of the largest one; ImageNet's custom is 224/256 = 0.875.
    """

    keeps_places = True

    def __init__(self, image_size: tuple[int, int], share: float = 1.0) -> None:
        self.image_size = image_size
        self.share = share

    def draw(self, size: tuple[int, int], rng: random.Random | None = None) -> Window:
        """Return the window of an image of ``size`` (H, W); nothing is random."""
        height, width = size
        h, w = _largest(height, width, self.image_size[1] / self.image_size[0])
        h, w = max(1, round(h * self.share)), max(1, round(w * self.share))
        return Window((height - h) // 2, (width - w) // 2, h, w)

    def finish(self, image: Tensor, rng: random.Random | None = None) -> Tensor:
        """Return the image."""
        return image


def _largest(height: int, width: int, aspect: float) -> tuple[int, int]:
    """Return the largest (height, width) of the aspect width/height inside an image."""
    return (
        (height, max(1, round(height * aspect))) if width >= height * aspect else (max(1, round(width / aspect)), width)
    )
