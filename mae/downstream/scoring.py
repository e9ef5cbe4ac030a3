"""The last word on a classifier: every prediction on the split that is scored, and what follows from them."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from mae.data.datamodule import ImageData
from mae.evaluation.classification_scores import ClassificationScores, measure_classification, write_predictions
from mae.report.figures import confusion_svg
from mae.report.page import Figure
from mae.report.tables import Row, Table
from mae.training.classifying import FinetuningModule

WORST_CLASSES = 10


@dataclass(frozen=True)
class Scored:
    """Scores on a split.

    Attributes:
        split: ``test``, or ``val`` where the data have no test split.
        scores: What was measured.
        classes: Names of the classes that the classifier knows.
    """

    split: str
    scores: ClassificationScores
    classes: Sequence[str]

    @property
    def results(self) -> dict[str, Any]:
        """Final numbers by plain names."""
        values = {
            "top1": self.scores.top1,
            "top5": self.scores.top5,
            "calibration_error": self.scores.calibration_error,
            "log_loss": self.scores.log_loss,
        }
        return {f"{self.split}_{name}": value for name, value in values.items() if value is not None} | {
            f"{self.split}_images": int(self.scores.confusion.sum())
        }

    @property
    def tables(self) -> list[Table]:
        """The classes that are recognised worst."""
        known = sorted((value, name) for name, value in self.scores.per_class.items() if value is not None)
        count = dict(zip(self.classes, self.scores.confusion.sum(dim=1).tolist(), strict=True))
        rows = [Row((name, f"{value:.1%}", f"{count[name]:,}")) for value, name in known[:WORST_CLASSES]]
        title = "Accuracy by class" if len(known) <= WORST_CLASSES else f"The {WORST_CLASSES} hardest classes"
        return [
            Table(
                title, ("class", "accuracy", "images"), rows, "All of them: per_class.csv; each image: predictions.csv."
            )
        ]

    @property
    def figures(self) -> list[Figure]:
        """The confusion matrix."""
        return [(f"Confusion on the {self.split} split", confusion_svg(self.scores.confusion, self.classes))]

    def write_classes(self, path: Path) -> None:
        """Write accuracy and confusions of each class as CSV."""
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["class", "images", "accuracy", *(f"predicted {name}" for name in self.classes)])
            for name, row in zip(self.classes, self.scores.confusion.tolist(), strict=True):
                writer.writerow([name, sum(row), self.scores.per_class[name], *row])


def score(
    trainer: L.Trainer,
    module: FinetuningModule,
    data: ImageData,
    folder: Path,
    ckpt_path: Path,
    known: Mapping[int, int] | None = None,
) -> Scored | None:
    """Predict the split that is scored, once, with the weights of a checkpoint; write predictions.csv and per_class.csv.

    Args:
        trainer: On any number of processes; each image counts once.
        module: Built as the checkpoint's.
        data: Its ``scored`` split is read.
        folder: Where the files go.
        ckpt_path: The weights.
        known: The classifier's number of each class of the data, where the two differ.

    Returns:
        The scores; None on all processes but the first.
    """
    trainer.test(module, datamodule=data, ckpt_path=ckpt_path, weights_only=True, verbose=False)
    if not trainer.is_global_zero:
        return None
    logits, labels = module.scored
    if known is not None:
        labels = _translate(labels, known)
    split, source = data.scored
    scored = Scored(split, measure_classification(logits, labels, module.classes), module.classes)
    folder.mkdir(parents=True, exist_ok=True)
    names = [source.name(index) for index in range(len(source))]
    write_predictions(folder / "predictions.csv", names, labels, logits, module.classes)
    scored.write_classes(folder / "per_class.csv")
    return scored


def _translate(labels: Tensor, known: Mapping[int, int]) -> Tensor:
    return torch.tensor([known[int(label)] for label in labels], dtype=torch.int64)
