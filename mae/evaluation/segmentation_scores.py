"""What a segmentation is worth: figures of a confusion matrix of pixels."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from mae.data.segmentation.masks import IGNORE, MaskError

COUNTS = ("image", "class", "found", "true", "predicted")


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


def image_counts(predicted: Tensor, masks: Tensor, classes: int) -> Tensor:
    """Return the pixels of each class in each image, as ``mean_iou`` and ``pixel_accuracy`` take them when summed over images.

    Args:
        predicted: (B, H, W), classes.
        masks: (B, H, W), true classes; pixels that are 255 count nowhere.
        classes: K.

    Returns:
        (B, 3 * K) int64: found rightly, true, and predicted pixels.
    """
    known = masks != IGNORE
    predicted, masks = predicted.long(), masks.long()
    parts = ((masks, known & (predicted == masks)), (masks, known), (predicted, known))
    # A bin of its own for what does not count.
    numbers = torch.stack([torch.where(counts, which, classes).flatten(1) for which, counts in parts], dim=1)
    counted = torch.zeros(*numbers.shape[:2], classes + 1, dtype=torch.int64, device=numbers.device)
    return counted.scatter_add_(2, numbers, torch.ones_like(numbers))[..., :classes].flatten(1)


def mean_iou(sums: Tensor) -> Tensor:
    """Return the mean IoU (R,) of sums (R, 3 * K) of what ``image_counts`` gives, over the classes that occur."""
    found, true, predicted = sums.double().reshape(len(sums), 3, -1).unbind(dim=1)
    return (found / (true + predicted - found)).nanmean(dim=1)


def pixel_accuracy(sums: Tensor) -> Tensor:
    """Return the share of right pixels (R,) of sums as ``mean_iou`` takes them."""
    found, true, _ = sums.double().reshape(len(sums), 3, -1).unbind(dim=1)
    return found.sum(dim=1) / true.sum(dim=1)


def write_image_counts(path: Path, names: Sequence[str], counts: Tensor, classes: Sequence[str]) -> None:
    """Write counts (N, 3 * K) of N images as CSV, a line for each class that occurs in the truth or prediction of an image."""
    each = counts.long().reshape(len(counts), 3, -1)
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(COUNTS)
        for image, number in each.sum(dim=1).nonzero().tolist():
            writer.writerow([names[image], classes[number], *each[image, :, number].tolist()])


def read_image_counts(path: Path, classes: Sequence[str]) -> dict[str, Tensor]:
    """Return the counts (3 * K,) of each image by its name, from what ``write_image_counts`` wrote."""
    numbers = {name: number for number, name in enumerate(classes)}
    found: dict[str, Tensor] = {}
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        for row in csv.DictReader(file):
            counts = found.setdefault(row["image"], torch.zeros(3, len(classes)))
            counts[:, numbers[row["class"]]] = torch.tensor([float(row[name]) for name in COUNTS[2:]])
    return {name: counts.flatten() for name, counts in found.items()}
