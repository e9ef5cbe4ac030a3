"""What a classifier's logits are worth, and a file of what it predicts."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

BINS = 15
TOP = 5


@dataclass(frozen=True, eq=False)
class ClassificationScores:
    """Figures of a classifier on N labelled images.

    Attributes:
        top1: Accuracy.
        top5: Share of images whose class is among the five likeliest; None where there are five classes or fewer.
        per_class: Accuracy by name; None for a class without images.
        confusion: (K, K) int64 counts, a row for each true class, a column for each predicted one.
        calibration_error: Expected calibration error; 0 where confidences are the accuracies.
        log_loss: Mean negative log-likelihood in nats; log K at chance.
    """

    top1: float
    top5: float | None
    per_class: dict[str, float | None]
    confusion: Tensor
    calibration_error: float
    log_loss: float


def measure_classification(logits: Tensor, labels: Tensor, classes: Sequence[str]) -> ClassificationScores:
    """Measure logits (N, K) against labels (N,) int64.

    Raises:
        ValueError: There are no images, or some have no label.
    """
    if not len(labels):
        raise ValueError("no images to measure: give one or more")
    unknown = int((labels < 0).sum())
    if unknown:
        raise ValueError(f"{unknown} of {len(labels)} images have no label: leave them out")
    K, logits = len(classes), logits.float()
    predicted = logits.argmax(dim=1)
    confusion = multiclass_confusion_matrix(predicted, labels, K)
    counts, right = confusion.sum(dim=1).tolist(), confusion.diagonal().tolist()
    return ClassificationScores(
        top1=share_right(predicted, labels),
        top5=float((logits.topk(TOP).indices == labels[:, None]).any(dim=1).double().mean()) if K > TOP else None,
        per_class={name: r / n if n else None for name, r, n in zip(classes, right, counts, strict=True)},
        confusion=confusion,
        calibration_error=calibration_error(logits.softmax(dim=1).amax(dim=1), predicted == labels),
        log_loss=float(F.cross_entropy(logits, labels)),
    )


def share_right(predicted: Tensor, labels: Tensor) -> float:
    """Return the accuracy of predicted classes (N,): the share that equals the labels (N,)."""
    return int((predicted == labels).sum()) / len(labels)


def calibration_error(confidence: Tensor, right: Tensor) -> float:
    """Return the expected calibration error over 15 bins of equal width, (a, b] (Guo et al. 2017, arXiv 1706.04599).

    torchmetrics 1.9 gives a confidence of exactly 1 a bin of its own, so over-confident and doubtful predictions of the last bin
    no longer balance; float32 reaches 1 often.

    Args:
        confidence: (N,), probability of the predicted class.
        right: (N,) bool, whether it is the true one.
    """
    inner = torch.linspace(0, 1, BINS + 1, dtype=torch.float64, device=confidence.device)[1:-1]
    confidence = confidence.double()
    gaps = torch.bincount(torch.bucketize(confidence, inner), weights=confidence - right.double(), minlength=BINS)
    return float(gaps.abs().sum() / len(confidence))


def write_predictions(path: Path, names: Sequence[str], labels: Tensor, logits: Tensor, classes: Sequence[str]) -> None:
    """Write one line of CSV for each image, complete or not at all.

    The columns are image, label, predicted and confidence; with more than five classes also the five likeliest, as
    class_1, probability_1 and so on.

    Args:
        path: The file.
        names: What a person calls each of the N images.
        labels: (N,) int64; -1 where a class is not known, which is left empty.
        logits: (N, K).
        classes: Names of the K classes.
    """
    shown = TOP if len(classes) > TOP else 1
    header = ["image", "label", "predicted", "confidence"]
    if shown > 1:
        header += [column for place in range(1, TOP + 1) for column in (f"class_{place}", f"probability_{place}")]
    probabilities, likeliest = logits.float().softmax(dim=1).topk(shown)
    partial = path.with_name(f".{path.name}")
    # A file's name need not be UTF-8; this way its bytes are written as they are.
    with partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for name, label, found, sure in zip(
            names, labels.tolist(), likeliest.tolist(), probabilities.tolist(), strict=True
        ):
            best = [cell for place, p in zip(found, sure, strict=True) for cell in (classes[place], f"{p:.6f}")]
            writer.writerow([name, "" if label < 0 else classes[label], *best[:2], *(best if shown > 1 else ())])
    partial.replace(path)


def read_right(path: Path) -> dict[str, bool]:
    """Return whether each labelled image was predicted rightly, by its name, from what ``write_predictions`` wrote."""
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return {row["image"]: row["predicted"] == row["label"] for row in csv.DictReader(file) if row["label"]}


def paired_right(ours: Mapping[str, bool], other: Mapping[str, bool]) -> tuple[Tensor, Tensor]:
    """Return whether each image that both know is right, as two bools (N,) in one order."""
    names = [name for name in ours if name in other]
    return torch.tensor([ours[name] for name in names]), torch.tensor([other[name] for name in names])
