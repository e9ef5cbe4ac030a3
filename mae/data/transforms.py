"""Crops and flips on uint8 images; pixels are standardised on the device."""

from __future__ import annotations

import math
import random

import torch.nn.functional as F
from torch import Tensor

from mae.data.augment import RandAugment


def resized_crop(image: Tensor, top: int, left: int, height: int, width: int, size: tuple[int, int]) -> Tensor:
    """Cut a window out of uint8 (C, H, W) and resize it, bicubic and antialiased.

    The same pixels as torchvision's ``resized_crop``, without its dispatch, which costs as much as the work on small images.
    """
    window = image[:, top : top + height, left : left + width].unsqueeze(0)
    return F.interpolate(window, size=size, mode="bicubic", antialias=True, align_corners=False).squeeze(0)


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

    def __call__(self, image: Tensor, rng: random.Random) -> Tensor:
        """Transform an image; all that is drawn is a function of the generator alone."""
        top, left, height, width = self.draw_crop(image.shape[-2], image.shape[-1], rng)
        image = resized_crop(image, top, left, height, width, self.image_size)
        image = image.flip(-1) if self.flip and rng.random() < 0.5 else image
        return image if self.augment is None else self.augment(image, rng)

    def draw_crop(self, height: int, width: int, rng: random.Random) -> tuple[int, int, int, int]:
        """Return (top, left, height, width): area share in (min_scale, 1), aspect in (3/4, 4/3) of the wanted one."""
        wanted = self.image_size[1] / self.image_size[0]
        if self.min_scale < 1:
            for _ in range(10):
                area = height * width * rng.uniform(self.min_scale, 1)
                aspect = wanted * math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
                w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
                if 0 < w <= width and 0 < h <= height:
                    return rng.randint(0, height - h), rng.randint(0, width - w), h, w
        # Nothing fitted (a very long image), or nothing is to be cut: the largest centre crop of the wanted shape.
        h, w = _largest(height, width, wanted)
        return (height - h) // 2, (width - w) // 2, h, w


class EvalTransform:
    """The largest centre crop of the wanted shape, resized: the same pixels in every run.

    Args:
        image_size: (H, W) in pixels.
        share: Side of the crop as a share of the largest one; ImageNet's custom is 224/256 = 0.875.
    """

    def __init__(self, image_size: tuple[int, int], share: float = 1.0) -> None:
        self.image_size = image_size
        self.share = share

    def __call__(self, image: Tensor, rng: random.Random | None = None) -> Tensor:
        """Transform an image; nothing is random."""
        height, width = image.shape[-2:]
        if (height, width) == self.image_size and self.share == 1:
            return image
        h, w = _largest(height, width, self.image_size[1] / self.image_size[0])
        h, w = max(1, round(h * self.share)), max(1, round(w * self.share))
        return resized_crop(image, (height - h) // 2, (width - w) // 2, h, w, self.image_size)


def _largest(height: int, width: int, aspect: float) -> tuple[int, int]:
    """Return the largest (height, width) of the aspect width/height inside an image."""
    return (
        (height, max(1, round(height * aspect))) if width >= height * aspect else (max(1, round(width / aspect)), width)
    )
