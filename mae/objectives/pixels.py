"""The target of a masked autoencoder: pixels, normalised patch by patch."""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-6  # inside the root, as in the released code


def patch_statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each patch, (..., 1) each, in at least float32.

    The variance is the unbiased one (He et al.'s released code), with 1e-6 inside the root.
    """
    patches = patches if patches.dtype == torch.float64 else patches.float()
    mean = patches.mean(dim=-1, keepdim=True)
    deviation = (patches.var(dim=-1, keepdim=True, unbiased=True) + EPSILON).sqrt()
    return mean, deviation


def normalize_patches(patches: Tensor) -> Tensor:
    """Give each patch vector (..., P*P*C) mean 0 and variance 1."""
    mean, deviation = patch_statistics(patches)
    return (patches - mean) / deviation


def denormalize_patches(normalized: Tensor, patches: Tensor) -> Tensor:
    """Undo normalize_patches with the statistics of the true patches: the inverse, and how predictions are shown."""
    mean, deviation = patch_statistics(patches)
    return normalized * deviation + mean
