"""Pixel statistics, and standardisation on the device."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def measure_pixels(images: Iterable[Tensor]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return per-channel mean and standard deviation of images (C, H, W): uint8, taken as [0, 1], or float32 as they are.

    Raises:
        ValueError: There is no image, or every image is one flat colour.
    """
    count, total, squares = 0, torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for image in images:
        pixels = unit_pixels(image).flatten(1).double()
        count += pixels.shape[1]
        total = total + pixels.sum(1)
        squares = squares + pixels.square().sum(1)
    if not count:
        raise ValueError("no image to measure the pixel statistics on")
    mean = total / count
    std = (squares / count - mean.square()).clamp_min(0).sqrt()
    if (std <= 1e-4 * mean.abs()).all():
        raise ValueError(
            f"the images hold one flat colour ({', '.join(f'{value:.3f}' for value in mean)}): nothing to learn"
        )
    # A channel that is flat in these images would be blown up without bound where it varies elsewhere.
    std = std.maximum(0.01 * std.max())
    return tuple(float(f"{value:.6g}") for value in mean.tolist()), tuple(
        float(f"{value:.6g}") for value in std.tolist()
    )


def unit_pixels(images: Tensor) -> Tensor:
    """Return float32 images: uint8 in [0, 1], others as they are."""
    return images.float() / 255 if images.dtype == torch.uint8 else images


def pixel_tensors(mean: Sequence[float], std: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Return mean and deviation per channel as (C, 1, 1), which is what ``standardize`` takes."""
    return torch.tensor(mean).view(-1, 1, 1), torch.tensor(std).view(-1, 1, 1)


def standardize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Turn images (B, C, H, W) into float32 of mean 0 and deviation 1.

    Args:
        images: uint8, taken as [0, 1], or float32 as they are.
        mean: (C, 1, 1), of pixels in that range.
        std: As ``mean``.
    """
    return (unit_pixels(images) - mean) / std


def unstandardize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Undo standardize, to floats in [0, 1] (clipped)."""
    return (images * std + mean).clamp(0, 1)
