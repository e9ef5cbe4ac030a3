"""The last word on a classifier: every prediction on the split that is scored, and what follows from them."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch

from mae.data.datamodule import ImageData
from mae.downstream.baselines import PREDICTIONS_FILE
from mae.downstream.tasks.task import Scored
from mae.evaluation.classification_scores import ClassificationScores, measure_classification, write_predictions
from mae.evaluation.intervals import accuracy_estimate
from mae.report.figures import confusion_svg
from mae.report.tables import Row, Table
from mae.training.classifying import ClassificationModule

WORST_CLASSES = 10


def score_classifier(
    trainer: L.Trainer,
    module: ClassificationModule,
    data: ImageData,
    folder: Path,
    weights: Path,
    known: Mapping[int, int],
) -> Scored | None:
    """Predict the split that is scored, once, with the weights of a checkpoint; write predictions.csv and per_class.csv.

    Args:
        trainer: On any number of processes; each image counts once.
        module: Built as the checkpoint's.
        data: Its ``scored`` split is read.
        folder: Where the files go.
        weights: The checkpoint.
        known: The classifier's number of each class of the data.

    Returns:
        The scores; None on all processes but the first.
    """
    trainer.test(module, datamodule=data, ckpt_path=weights, weights_only=True, verbose=False)
    if not trainer.is_global_zero:
        return None
    logits, labels = module.scored
    labels = torch.tensor([known[int(label)] for label in labels], dtype=torch.int64)
    (split, source), classes = data.scored, module.classes
    scores = measure_classification(logits, labels, classes)
    folder.mkdir(parents=True, exist_ok=True)
    names = [source.name(index) for index in range(len(source))]
    write_predictions(folder / PREDICTIONS_FILE, names, labels, logits, classes)
    _write_classes(folder / "per_class.csv", scores, classes)
    results = _results(split, scores)
    images = results[f"{split}_images"]
    top5 = f", top-5 {accuracy_estimate(scores.top5, images)}" if scores.top5 is not None else ""
    return Scored(
        split,
        results,
        f"{images:,} {split} images: top-1 {accuracy_estimate(scores.top1, images)}{top5}; confidence is off by "
        f"{scores.calibration_error:.1%} on average (expected calibration error).",
        tables=[_hardest(scores, classes)],
        figures=[(f"Confusion on the {split} split", confusion_svg(scores.confusion, classes))],
    )


def _results(split: str, scores: ClassificationScores) -> dict[str, Any]:
    values = {
        "top1": scores.top1,
        "top5": scores.top5,
        "calibration_error": scores.calibration_error,
        "log_loss": scores.log_loss,
        "images": int(scores.confusion.sum()),
    }
    return {f"{split}_{name}": value for name, value in values.items() if value is not None}


def _hardest(scores: ClassificationScores, classes: Sequence[str]) -> Table:
    """Return the classes that are recognised worst."""
    known = sorted((value, name) for name, value in scores.per_class.items() if value is not None)
    count = dict(zip(classes, scores.confusion.sum(dim=1).tolist(), strict=True))
    rows = [
        Row((name, str(accuracy_estimate(value, count[name])), f"{count[name]:,}"))
        for value, name in known[:WORST_CLASSES]
    ]
    title = "Accuracy by class" if len(known) <= WORST_CLASSES else f"The {WORST_CLASSES} hardest classes"
    note = "All of them: per_class.csv; each image: predictions.csv."
    return Table(title, ("class", "accuracy", "images"), rows, note)


def _write_classes(path: Path, scores: ClassificationScores, classes: Sequence[str]) -> None:
    """Write accuracy and confusions of each class as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["class", "images", "accuracy", *(f"predicted {name}" for name in classes)])
        for name, row in zip(classes, scores.confusion.tolist(), strict=True):
            writer.writerow([name, sum(row), scores.per_class[name], *row])
