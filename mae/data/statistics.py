"""Pixel statistics, and standardisation on the device."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class PixelSums:
    """Sums over pixels: uint8, taken as [0, 1], or floats as they are. Those of one image and of another add up.

    Attributes:
        count: Pixels; or images, where each of them counts once.
        total: (C,) float64, sum of their values; one channel stands for all beside images in colour.
        squares: (C,) float64, sum of their squares.
    """

    count: int
    total: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, image: Tensor, valid: Tensor | None = None) -> PixelSums:
        """Return the sums of an image (C, H, W), or of those of its pixels that are there (H, W)."""
        if valid is not None:
            image = image[:, valid].unsqueeze(1)
        count = image.shape[-2] * image.shape[-1]
        if image.dtype != torch.uint8:
            pixels = image.flatten(1).double()
            return cls(count, pixels.sum(1).numpy(), pixels.square().sum(1).numpy())
        # From a histogram: in whole numbers, exact whatever the order, and many times faster than to turn pixels into floats.
        counts, values = (
            torch.stack([channel.flatten().bincount(minlength=256) for channel in image]),
            torch.arange(256),
        )
        return cls(count, (counts * values).sum(1).numpy() / 255, (counts * values**2).sum(1).numpy() / 255**2)

    def per_image(self) -> PixelSums:
        """Return the sums of one image as those of a single, average pixel.

        Training sees every image at one size, so that a large one counts no more than a small one.
        """
        return PixelSums(1, self.total / self.count, self.squares / self.count)

    def __add__(self, other: PixelSums) -> PixelSums:
        """Return the sums over both.

        Raises:
            ValueError: Their channels cannot be mixed.
        """
        if len(self.total) != len(other.total) and {len(self.total), len(other.total)} != {1, 3}:
            raise ValueError(
                f"images of {len(self.total)} and {len(other.total)} channels are mixed: "
                f"only grey and colour images can stand side by side"
            )
        return PixelSums(self.count + other.count, self.total + other.total, self.squares + other.squares)

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and standard deviation per channel, to six digits.

        Channels may be in units of their own. One that is flat in these images would be blown up without bound where it varies
        elsewhere: its deviation is taken to be its mean.

        Raises:
            ValueError: Every pixel is of one flat colour, or there is none.
        """
        if not self.count:
            raise ValueError(
                "no pixel is there at the size that the model sees: so many are missing that none is left where images are "
                "resized; fill them, or see the images larger (data.image_size)"
            )
        mean = self.total / self.count
        std = np.sqrt(np.maximum(self.squares / self.count - mean**2, 0))
        flat = std <= 1e-4 * np.abs(mean)
        if flat.all():
            raise ValueError(
                f"the images hold one flat colour ({', '.join(f'{value:.3f}' for value in mean)}): nothing to learn"
            )
        std = np.where(flat, np.maximum(np.abs(mean), 0.01 * std.max()), std)
        return tuple(float(f"{value:.6g}") for value in mean), tuple(float(f"{value:.6g}") for value in std)


def measure_pixels(
    images: Iterable[Tensor | tuple[Tensor, Tensor | None]],
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return per-channel mean and standard deviation of images (C, H, W): uint8, taken as [0, 1], or float32 as they are.

    Every pixel counts once: for images to count the same, give them at one size, as ``ImageData`` does. An image may come with a
    map (H, W) of its pixels that are there, or None, and then these alone count.

    Raises:
        ValueError: There is no image, or every image is one flat colour.
    """
    sums: PixelSums | None = None
    for given in images:
        found = PixelSums.of(given) if isinstance(given, Tensor) else PixelSums.of(*given)
        sums = found if sums is None else sums + found
    if sums is None:
        raise ValueError("no image to measure the pixel statistics on")
    return sums.statistics()


def unit_pixels(images: Tensor) -> Tensor:
    """Return float32 images: uint8 in [0, 1], others as they are."""
    return images.float() / 255 if images.dtype == torch.uint8 else images


def pixel_tensors(mean: Sequence[float], std: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Return mean and deviation per channel as (C, 1, 1), which is what ``standardize`` takes."""
    return torch.tensor(mean).view(-1, 1, 1), torch.tensor(std).view(-1, 1, 1)


def standardize(images: Tensor, mean: Tensor, std: Tensor, valid: Tensor | None = None) -> Tensor:
    """Turn images (B, C, H, W) into float32 of mean 0 and deviation 1; pixels that are not there become 0, the mean.

    Args:
        images: uint8, taken as [0, 1], or float32 as they are.
        mean: (C, 1, 1), of pixels in that range.
        std: As ``mean``.
        valid: (B, H, W) bool, which pixels are there; None where all are.
    """
    standard = (unit_pixels(images) - mean) / std
    return standard if valid is None else standard * valid.unsqueeze(1)


SPAN = 5.0
"""Deviations that fill the range of a picture where pixels have no range of their own: the mean and 2.5 to either side."""


def shown_channels(channels: int, bits: int) -> tuple[int, ...] | None:
    """Return the channels that stand for red, green and blue in a picture, or the one for grey; None where it needs no choice.

    Grey and colour images of 8 bits look as they are. Others are shown in false colours: three channels, evenly spread.

    Args:
        channels: C.
        bits: 8, or 16 for images that are floats.
    """
    if channels in (1, 3) and bits == 8:
        return None
    return (0,) if channels == 1 else (0, channels // 2, channels - 1)


def false_colours(images: Tensor, shown: Sequence[int]) -> Tensor:
    """Return some channels of standardised images (B, C, H, W), each stretched so that mean ± 2.5 deviations fill [0, 1]."""
    return (images[:, list(shown)] / SPAN + 0.5).clamp(0, 1)


def unstandardize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Undo standardize, to floats in [0, 1] (clipped)."""
    return (images * std + mean).clamp(0, 1)
