"""What features and patches are like, without any label."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from mae.data.loading.batches import Batch
from mae.data.statistics import SPAN, standardize, unit_pixels
from mae.models.layers.patches import patch_shares, patchify
from mae.objectives.pixels import normalize_patches

GREY_LEVEL = 1 / 255
"""Deviation of the pixels below which a patch is flat, of pixels in [0, 1]: one step of an 8-bit image.

Below it rounding and compression decide what is left of a patch once its mean is gone. Normalising such a patch gives it
variance 1 nevertheless, a target of noise; a patch that is constant to the bit gives zero.
"""


def rankme(features: Tensor) -> float:
    """Return RankMe of features (N, D): the effective number of dimensions that they use, from 1 to min(N, D).

    The exponential of the entropy of the singular values, normalised to sum 1, plus 1e-7 each (Garrido et al. 2023,
    arXiv 2210.02885, equation 1). As there, the features are not centred.
    """
    values = torch.linalg.svdvals(features.double())
    shares = values / values.sum() + 1e-7
    return float((-(shares * shares.log()).sum()).exp())


def feature_std(features: Tensor) -> float:
    """Return how far L2-normalised features (N, D) spread: 1 where they fill the sphere evenly, 0 where all are one.

    The standard deviation of each dimension, averaged, times sqrt(D) (Chen & He 2021, SimSiam, arXiv 2011.10566, figure 2).
    """
    features = F.normalize(features.double(), dim=1)
    return float(features.std(dim=0).mean() * math.sqrt(features.shape[1]))


def flat_patches(images: Tensor, patch_size: int) -> Tensor:
    """Return which patches of images (B, C, H, W), uint8 or floats in [0, 1], are nearly one colour, as bools (B, L).

    The deviation is over the pixels of a patch, in each channel, averaged in the square: it is below ``GREY_LEVEL``.
    """
    B, C = images.shape[:2]
    patches = patchify(unit_pixels(images), patch_size)
    variance = patches.reshape(B, -1, patch_size**2, C).var(dim=2, unbiased=False).mean(dim=-1)
    return variance < GREY_LEVEL**2


def patch_figures(batches: Iterable[Batch], patch_size: int, mean: Tensor, std: Tensor) -> dict[str, float]:
    """Return what the patches of a data set make of the objective, whatever is learned.

    Args:
        batches: Images, uint8 or float32. Floats may be of any range, so that ``SPAN`` deviations are taken for it.
        patch_size: P, in pixels.
        mean: (C, 1, 1), on the device that computes.
        std: As ``mean``.

    Returns:
        Of patches that hold all their pixels, where there are some: ``flat_patches``, their share, and ``patch_mean_loss``, the
        loss on normalised pixels of predicting each patch's mean: 1 but for flat patches, whose targets are near zero (the
        objective adds 1e-6 to the variance).
    """
    flat, squares, count = 0, torch.zeros((), dtype=torch.float64), 0
    for batch in batches:
        images = batch.images.to(mean.device)
        full = images if images.dtype == torch.uint8 else images / (SPAN * std)
        whole = whole_patches(batch, patch_size).to(mean.device)
        flat += int(flat_patches(full, patch_size)[whole].sum())
        target = normalize_patches(patchify(standardize(images, mean, std), patch_size)[whole])
        squares += target.square().mean(dim=-1).sum().double().cpu()
        count += len(target)
    return {"flat_patches": flat / count, "patch_mean_loss": float(squares) / count} if count else {}


def whole_patches(batch: Batch, patch_size: int) -> Tensor:
    """Return which patches of a batch hold all their pixels, as bools (B, L)."""
    B, _, H, W = batch.images.shape
    if batch.valid is None:
        return torch.ones(B, H // patch_size * (W // patch_size), dtype=torch.bool, device=batch.images.device)
    return patch_shares(batch.valid, patch_size) == 1


def unit_patches(batches: Iterable[Batch], patch_size: int) -> Iterator[Tensor]:
    """Return the patches (B, L, P*P*C) of images (B, C, H, W), uint8 or floats in [0, 1], as pixels in [0, 1].

    Of a batch that lacks pixels those that hold all of theirs, (1, N, P*P*C).
    """
    for batch in batches:
        patches = patchify(unit_pixels(batch.images), patch_size)
        yield patches if batch.valid is None else patches[whole_patches(batch, patch_size)].unsqueeze(0)
