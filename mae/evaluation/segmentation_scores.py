"""What a segmentation is worth: figures of a confusion matrix of pixels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from mae.data.segmentation.masks import IGNORE, MaskError


@dataclass(frozen=True, eq=False)
class SegmentationScores:
    """Figures of a segmentation into K classes; pixels without a label count nowhere.

    Attributes:
        mean_iou: Mean of ``iou`` over the classes that occur in truth or prediction.
        pixel_accuracy: Share of the pixels whose class is right.
        mean_accuracy: Mean over the classes that occur in truth of the share of their pixels that is found.
        iou: K values, intersection over union of each class; None for one that occurs in neither.
        pixels: K values, true pixels of each class.
    """

    mean_iou: float
    pixel_accuracy: float
    mean_accuracy: float
    iou: tuple[float | None, ...]
    pixels: tuple[int, ...]


def count_confusions(classes: int) -> MulticlassConfusionMatrix:
    """Return a metric that counts, over batches and devices, pixels by true (row) and predicted class (column): (K, K) int64.

    It takes logits (B, K, H, W) or classes (B, H, W), and masks (B, H, W) of any integers, 255 where there is no label.
    """
    # Its checks look for foreign classes at each step, which waits for the device; masks were checked where they were read.
    return MulticlassConfusionMatrix(classes, ignore_index=IGNORE, validate_args=False)


def measure_segmentation(confusion: Tensor) -> SegmentationScores:
    """Measure a confusion matrix (K, K) of counts, rows true, columns predicted.

    Raises:
        MaskError: No pixel was counted.
    """
    if not confusion.any():
        raise MaskError("no pixel that was scored has a label: give masks that hold classes")
    confusion = confusion.cpu().double()  # float64 counts exactly, up to 2^53 pixels
    right, true, predicted = confusion.diagonal(), confusion.sum(dim=1), confusion.sum(dim=0)
    either = true + predicted - right
    iou = right / either  # NaN for a class that does not occur
    return SegmentationScores(
        mean_iou=float(iou[either > 0].mean()),
        pixel_accuracy=float(right.sum() / true.sum()),
        mean_accuracy=float((right / true)[true > 0].mean()),
        iou=tuple(value if occurs else None for value, occurs in zip(iou.tolist(), either.tolist(), strict=True)),
        pixels=tuple(true.long().tolist()),
    )


def commonest(confusion: Tensor) -> SegmentationScores:
    """Measure what always naming the commonest true class would be worth on the same pixels, see ``measure_segmentation``."""
    true = confusion.sum(dim=1)
    return measure_segmentation(torch.zeros_like(confusion).index_copy(1, true.argmax()[None], true[:, None]))
