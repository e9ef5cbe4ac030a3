"""What frozen features tell, as tables, a figure and sentences."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mae.data.few_labels import few_labels
from mae.evaluation.frozen.few_shot import BUDGETS, Budget
from mae.evaluation.frozen.summary import FrozenScores
from mae.evaluation.intervals import accuracy_estimate, mean_interval
from mae.evaluation.paired import Difference, decisive, paired_runs
from mae.evaluation.verdict import LONGER, beside, opening
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
            str(accuracy_estimate(one.knn_top1, images)),
            str(accuracy_estimate(one.logistic_top1, images)),
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
        f"temperature {chosen.knn.temperature:g}, C = {chosen.logistic.strength:g}). 95% intervals over the images. "
        f"{compared} {notes}".strip(),
    )


def few_shot_table(scores: Mapping[str, FrozenScores]) -> Table:
    """Return the few-shot curves as numbers, mean and 95% interval over the draws, and by how much the pretrained are ahead."""
    budgets = list(next(iter(scores.values())).few_shot)
    rows = [
        Row((name, *(_few_shot(one, budget) for budget in budgets)), ours=name == PRETRAINED)
        for name, one in scores.items()
    ]
    if PRETRAINED in scores:
        for other in (RANDOM, PIXELS):
            gaps = (str(_difference(scores, other, _named(budget))) for budget in budgets)
            rows.append(Row((f"ahead of {other}", *gaps)))
    draws = max(len(values) for one in scores.values() for values in one.few_shot.values())
    note = (
        f"Logistic regression; mean and 95% interval over {draws} draws of the labels. All labels are one draw, with the interval "
        f"over the images. The differences are paired by draw and image, and their intervals cover both."
    )
    return Table("Few labels", ("", *budgets), rows, note)


def _few_shot(one: FrozenScores, budget: str) -> str:
    accuracies = one.few_shot[budget]
    if len(accuracies) > 1:
        return str(mean_interval(accuracies))
    return str(accuracy_estimate(accuracies[0], one.right["logistic"].shape[1]))


def _named(budget: str) -> str:
    """Return the measure of a few-shot budget: that of all labels is the logistic regression."""
    return "logistic" if budget == str(Budget()) else budget


def _difference(scores: Mapping[str, FrozenScores], other: str, measure: str) -> Difference:
    return paired_runs(scores[PRETRAINED].right[measure], scores[other].right[measure])


def paired_results(scores: Mapping[str, FrozenScores]) -> dict[str, Any]:
    """Return ``differences`` of the pretrained features from the others, as (mean, low, high), and ``verdict``, the word.

    There are ``logistic_random``, ``knn_random`` and ``few_shot_random``, the last by budget, and the same for ``pixels``; none
    where no pretrained features were measured.
    """
    if PRETRAINED not in scores:
        return {}
    differences: dict[str, Any] = {}
    few = [budget for budget in scores[PRETRAINED].few_shot if budget != str(Budget())]
    for other, name in ((RANDOM, "random"), (PIXELS, "pixels")):
        for measure in ("logistic", "knn"):
            differences[f"{measure}_{name}"] = _difference(scores, other, measure).plain
        differences[f"few_shot_{name}"] = {budget: _difference(scores, other, budget).plain for budget in few}
    return {"differences": differences, "verdict": _decided(scores)[1].word}


def _decided(scores: Mapping[str, FrozenScores]) -> tuple[str, Difference]:
    """Return the measure that says whether pretraining helped, with what it says.

    A regression on all labels comes first, then kNN, then the few-shot budgets, the largest first.
    """
    few = [budget for budget in scores[PRETRAINED].few_shot if budget != str(Budget())]
    found = {measure: _difference(scores, RANDOM, measure) for measure in ("logistic", "knn", *reversed(few))}
    measure = decisive(found)
    return measure, found[measure]


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
    """Return what the measures say, in sentences: first the word on pretraining, where there are pretrained features."""

    def figure(name: str, measure: str) -> str:
        one = scores[name]
        if measure in ("logistic", "knn"):
            return str(accuracy_estimate(one.logistic_top1 if measure == "logistic" else one.knn_top1, images))
        return _few_shot(one, measure)

    def called(measure: str) -> str:
        names = {"logistic": "logistic regression on all labels", "knn": "kNN"}
        of_the = " of the labels" if "%" in measure else ""
        return names.get(measure, f"logistic regression on {measure}{of_the}")

    images = next(iter(scores.values())).right["logistic"].shape[1]
    fewest = _named(next(iter(next(iter(scores.values())).few_shot)))
    measures, sentences = ["logistic", "knn", fewest], []
    behind = False
    if PRETRAINED in scores:
        measure, difference = _decided(scores)
        text = (
            f"{called(measure)}, {figure(PRETRAINED, measure)}, the same on random weights {figure(RANDOM, measure)}, "
            f"{difference} on {images:,} {split} images."
        )
        against = _difference(scores, PIXELS, measure)
        sentences = [
            opening(difference.word, text),
            beside("raw pixels by the same measure", figure(PIXELS, measure), against),
        ]
        measures = [one for one in measures if one != measure]
        behind = difference.word != "helped" or against.word == "hurt"
    for measure in dict.fromkeys(measures):
        listed = ", ".join(f"{name} {figure(name, measure)}" for name in scores)
        gap = f"; {_difference(scores, RANDOM, measure)} over random weights" if PRETRAINED in scores else ""
        sentences.append(f"By {called(measure)}: {listed}{gap}.")
    if split == "val":
        sentences.append(
            "The data have no test split: the figures are of the images that also chose k, temperature and C."
        )
    return [*sentences, LONGER] if behind else sentences
