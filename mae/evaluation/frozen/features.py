"""Frozen features of whole data sets."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from mae.data.loading.batches import Batch
from mae.data.statistics import standardize
from mae.models.backbones.backbone import Backbone
from mae.models.classifier import check_pool, pool_tokens
from mae.models.layers.whitening import Whitening

MOST_DIRECTIONS = 256
"""Principal directions that features of more than four times as many, such as the pixels of a colour image, are cut to."""
SKETCHED = 8_192
"""Images that these directions are found on."""


@torch.no_grad()
def extract_features(
    batches: Iterable[Batch], features: Callable[[Tensor], Tensor], mean: Tensor, std: Tensor
) -> tuple[Tensor, Tensor]:
    """Return features (N, D) float32 and labels (N,) int64, both on the CPU.

    Args:
        batches: Images, uint8 or float32.
        features: Standardised images (B, C, H, W) to (B, D).
        mean: (C, 1, 1), on the device that computes.
        std: As ``mean``.
    """
    rows, labels = [], []
    for batch in batches:
        valid = None if batch.valid is None else batch.valid.to(mean.device, non_blocking=True)
        images = standardize(batch.images.to(mean.device, non_blocking=True), mean, std, valid)
        rows.append(features(images).float().cpu())
        labels.append(batch.labels)
    return torch.cat(rows), torch.cat(labels)


def frozen(encoder: Backbone, pool: str = "mean") -> Callable[[Tensor], Tensor]:
    """Return the function that an encoder in eval mode computes: images (B, C, H, W) to pooled features (B, D).

    Every patch is seen. The encoder is left in the mode that it was in.
    """
    check_pool(encoder, pool)

    def features(images: Tensor) -> Tensor:
        training = encoder.training
        encoder.eval()
        try:
            return pool_tokens(encoder, encoder(images), pool)
        finally:
            encoder.train(training)

    return features


def raw_pixels(images: Tensor) -> Tensor:
    """Return the pixels themselves as features, (B, C, H, W) to (B, D): the baseline that any encoder should beat.

    Images of more than 32 pixels a side are shrunk to 32, or the distances drown in detail.
    """
    if max(images.shape[-2:]) > 32:
        images = F.interpolate(images, size=(32, 32), mode="bilinear", antialias=True, align_corners=False)
    return images.flatten(1)


def principal_directions(x: Tensor, most: int) -> Tensor:
    """Return orthonormal columns (D, R) along which centred features (N, D) do not correlate.

    They span all of them; but where N and D are both more than four times ``most``, only so many are given, those of the largest
    variance, from a sketch of ``SKETCHED`` of the features (Halko et al. 2011, arXiv 0909.4061). The same ones in every run.
    """
    if min(x.shape) > 4 * most:
        rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:SKETCHED]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            directions: Tensor = torch.pca_lowrank(x[rows], most, center=False)[2]
    elif len(x) < x.shape[1]:
        directions = torch.linalg.svd(x, full_matrices=False)[2].T
    else:
        directions = torch.linalg.eigh(x.T @ x)[1]
    return directions


def whitened(train: Tensor, *others: Tensor, power: float = 1.0) -> tuple[Tensor, ...]:
    """Return features (N, D) as cosine similarity should see them: whitened by the first, of training images.

    ``power`` is that of ``Whitening.fit``. Very wide features are cut to their principal directions first: 3,072 pixels would
    take a minute. One image alone is left as it is.
    """
    if len(train) < 2:
        return (train, *others)
    if train.shape[1] > 4 * MOST_DIRECTIONS:
        mean = train.mean(dim=0)
        directions = principal_directions(train - mean, MOST_DIRECTIONS)
        train, *rest = ((features - mean) @ directions for features in (train, *others))
        others = tuple(rest)
    whitening = Whitening.fit(train, power=power)
    return tuple(whitening(features) for features in (train, *others))
