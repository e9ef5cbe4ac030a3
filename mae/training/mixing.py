"""What happens to a training batch of the second stage on the device: Mixup, CutMix and random erasing."""

from __future__ import annotations

import torch.nn.functional as F
from timm.data import Mixup
from timm.data.random_erasing import RandomErasing
from torch import Tensor


class BatchAugmentation:
    """Erase rectangles, mix pairs of images, and turn classes into targets (timm's, as the paper fine-tunes).

    Mixup (Zhang et al. 2017) blends two images, CutMix (Yun et al. 2019) pastes a rectangle of one into the other; with both, a
    coin decides for each batch. They draw from the global generators of random, numpy and torch.

    Args:
        classes: K.
        mixup: Alpha of the Beta distribution; the paper's is 0.8, and 0 is off.
        cutmix: The same for CutMix; the paper's is 1.0.
        erasing: Probability that a rectangle of an image becomes noise; the released recipe's is 0.25.
        label_smoothing: Share of the target that is spread over all classes; the paper's is 0.1.
    """

    def __init__(
        self,
        classes: int,
        *,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        erasing: float = 0.0,
        label_smoothing: float = 0.0,
    ) -> None:
        self.label_smoothing = label_smoothing
        self.mix = (
            Mixup(mixup_alpha=mixup, cutmix_alpha=cutmix, label_smoothing=label_smoothing, num_classes=classes)
            if mixup or cutmix
            else None
        )
        self.erase = RandomErasing(erasing, mode="pixel") if erasing else None

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return images (B, C, H, W), changed in place, and targets: (B,) classes, or (B, K) shares where images are mixed."""
        if self.erase is not None:
            self.erase.device = images.device
            images = self.erase(images)
        return (images, labels) if self.mix is None else self.mix(images, labels)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy in float32; mixed targets (B, K) are smoothed already."""
        smoothing = self.label_smoothing if targets.ndim == 1 else 0.0
        return F.cross_entropy(logits.float(), targets, label_smoothing=smoothing)
