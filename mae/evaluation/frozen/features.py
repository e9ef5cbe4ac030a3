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
        images = standardize(batch.images.to(mean.device, non_blocking=True), mean, std)
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
            return pool_tokens(encoder(images), encoder.num_prefix_tokens, pool)
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
