"""What frozen features tell, as tables, a figure and sentences."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mae.data.few_labels import few_labels
from mae.evaluation.frozen.few_shot import BUDGETS
from mae.evaluation.frozen.summary import FrozenScores
from mae.evaluation.intervals import mean_interval
from mae.report.figures import lines_svg
from mae.report.tables import Row, Table

PRETRAINED, RANDOM, PIXELS = "pretrained", "same encoder, random weights", "raw pixels"


def result_table(scores: Mapping[str, FrozenScores], split: str, images: int, *, whiten: bool) -> Table:
    """Return every measure, a row for each kind of features, which ``measure_frozen`` whitened or not."""
    head = ("", "kNN", "logistic regression", "cluster accuracy", "cluster NMI", "recall at 1", "mAP")
    rows = []
    for name, one in scores.items():
        found, clusters = one.retrieval, one.clustering
        cells = (
            f"{one.knn_top1:.1%}",
            f"{one.logistic_top1:.1%}",
            f"{clusters.accuracy:.1%}" if clusters else "",
            f"{clusters.nmi:.3f}" if clusters else "",
            f"{found.recall[1]:.1%}" if found else "",
            f"{found.mean_average_precision:.3f}" if found else "",
        )
        rows.append(Row((name, *cells), ours=name == PRETRAINED))
    notes = " ".join(dict.fromkeys(note for one in scores.values() for note in one.notes))
    chosen = next(iter(scores.values()))
    compared = (
        "kNN compares whitened features, clusters and retrieval those whitened half way."
        if whiten
        else "kNN, clusters and retrieval compare features as they are, not whitened."
    )
    return Table(
        "Frozen features",
        head,
        rows,
        f"On {images:,} {split} images; k, temperature and regularisation are chosen on validation (here k = {chosen.knn.k}, "
        f"temperature {chosen.knn.temperature:g}, C = {chosen.logistic.strength:g}). {compared} {notes}".strip(),
    )


def few_shot_table(scores: Mapping[str, FrozenScores]) -> Table:
    """Return the few-shot curves as numbers: mean and 95% interval over the draws."""
    budgets = list(next(iter(scores.values())).few_shot)
    rows = [
        Row((name, *(str(mean_interval(one.few_shot[budget])) for budget in budgets)), ours=name == PRETRAINED)
        for name, one in scores.items()
    ]
    draws = max(len(values) for one in scores.values() for values in one.few_shot.values())
    note = f"Logistic regression; mean and 95% interval over {draws} draws of the labels. All labels are one draw."
    return Table("Few labels", ("", *budgets), rows, note)


def few_shot_figure(scores: Mapping[str, FrozenScores], labels: np.ndarray, classes: Sequence[str]) -> tuple[str, str]:
    """Draw the few-shot curves over the number of labelled images, of which ``labels`` are all."""
    sizes = {
        str(budget): len(few_labels(labels, classes, 0, budget.per_class, budget.fraction))
        for budget in BUDGETS
        if all(str(budget) in one.few_shot for one in scores.values())
    }
    lines = {}
    for name, one in scores.items():
        intervals = {budget: mean_interval(one.few_shot[budget]) for budget in sorted(sizes, key=sizes.__getitem__)}
        lines[name] = [
            (float(sizes[budget]), interval.mean, interval.half_width) for budget, interval in intervals.items()
        ]
    return "Few labels", lines_svg(lines, "labelled images", "top-1")


def write_few_shot(path: Path, scores: Mapping[str, FrozenScores]) -> None:
    """Write every draw as a row."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["features", "labels", "draw", "top1"])
        for name, one in scores.items():
            for budget, values in one.few_shot.items():
                writer.writerows([name, budget, draw, value] for draw, value in enumerate(values))


def verdicts(scores: Mapping[str, FrozenScores], split: str) -> list[str]:
    """Return what the measures say, in sentences."""
    knn = ", ".join(f"{name} {one.knn_top1:.1%}" for name, one in scores.items())
    logistic = ", ".join(f"{name} {one.logistic_top1:.1%}" for name, one in scores.items())
    sentences = [f"kNN: {knn}.", f"Logistic regression on all labels: {logistic}."]
    fewest = next(iter(next(iter(scores.values())).few_shot))
    few = ", ".join(f"{name} {mean_interval(one.few_shot[fewest])}" for name, one in scores.items())
    sentences.append(f"With {fewest} of the labels: {few}." if "%" in fewest else f"With {fewest}: {few}.")
    if split == "val":
        sentences.append(
            "The data have no test split: the figures are of the images that also chose k, temperature and C."
        )
    if PRETRAINED in scores:
        ours = scores[PRETRAINED]
        for other in (RANDOM, PIXELS):
            if max(ours.knn_top1, ours.logistic_top1) < max(scores[other].knn_top1, scores[other].logistic_top1):
                sentences.append(f"Pretraining is behind {other}: train longer, or on more images.")
    return sentences
