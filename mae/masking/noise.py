"""Noise that belongs to an image: a function of its key alone, the same bits on every device and in whatever batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# splitmix64 (Steele, Lea and Flood 2014, doi 10.1145/2660193.2660195), in the signed numbers of torch, whose product wraps.
GOLDEN = 0x9E3779B97F4A7C15 - 2**64
FIRST = 0xBF58476D1CE4E5B9 - 2**64
SECOND = 0x94D049BB133111EB - 2**64
DIGITS = 24
"""Bits of a float32: uniform numbers are multiples of 2**-24."""


def image_keys(stream: int, images: Tensor, repeats: int = 1) -> Tensor:
    """Return a key for each image of a batch: (B,) int64 to (B,) int64.

    Args:
        stream: What the draws are for, such as ``derive_seed(MASKS, seed, epoch)``.
        images: The image of each row, such as its index in a split.
        repeats: Crops of an image, which stand side by side and have each a key of its own.
    """
    repeat = torch.arange(len(images), device=images.device) % repeats
    image = _mixed(_mixed(images + stream) + GOLDEN)
    return _mixed(image + repeat)


def uniform(keys: Tensor, *shape: int) -> Tensor:
    """Return uniform numbers in [0, 1), a row for each key: (B,) int64 to (B, *shape) float32, whatever the default dtype."""
    counters = torch.arange(1, math.prod(shape) + 1, device=keys.device) * GOLDEN
    bits = _shifted(_mixed(keys[:, None] + counters), 64 - DIGITS)
    numbers: Tensor = bits.to(torch.float32) / 2**DIGITS
    return numbers.view(-1, *shape)


def _mixed(x: Tensor) -> Tensor:
    x = (x ^ _shifted(x, 30)) * FIRST
    x = (x ^ _shifted(x, 27)) * SECOND
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, places: int) -> Tensor:
    """Return x, shifted right as an unsigned number; torch moves the sign in."""
    moved: Tensor = (x >> places) & (2 ** (64 - places) - 1)
    return moved
