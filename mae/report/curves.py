"""Curves as SVG, from a run's metrics.csv."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from mae.report.drawing import COLOURS, drawing
from mae.training.loggers import read_metrics

Series = Sequence[tuple[int, float]]


def curve_svg(series: Mapping[str, Series], ylabel: str, *, levels: Mapping[str, float] | None = None) -> str:
    """Draw curves over optimizer steps.

    Args:
        series: (step, value) pairs by label; a single pair is drawn as a point.
        ylabel: What the values are.
        levels: Dashed horizontal lines by label, such as a baseline.

    Returns:
        An ``<svg>`` element.
    """
    with drawing() as result:
        axes = result.axes
        for number, (label, pairs) in enumerate(series.items()):
            steps, values = zip(*pairs, strict=True)
            marker = "o" if len(pairs) <= 40 else None
            axes.plot(steps, values, label=label, color=COLOURS[number % 4], marker=marker, markersize=3, linewidth=1.4)
        for number, (label, value) in enumerate((levels or {}).items()):
            axes.axhline(value, label=label, color=COLOURS[(2 + number) % 4], linestyle="--", linewidth=1)
        # The first steps start far above the rest and would flatten it.
        settled = [value for pairs in series.values() for _, value in pairs[len(pairs) // 50 :] if math.isfinite(value)]
        if ylabel == "loss" and settled:
            axes.set_ylim(top=1.05 * max(settled), bottom=0)
        axes.set_xlabel("step")
        axes.set_ylabel(ylabel)
        if len(series) + len(levels or {}) > 1:
            axes.legend()
    return result.svg


def run_curves(folder: Path, results: Mapping[str, float]) -> list[tuple[str, str]]:
    """Return the (title, svg) of each curve that a run's metrics.csv holds."""
    path = folder / "metrics.csv"
    metrics = read_metrics(path) if path.is_file() else {}
    curves = []
    losses = {
        label: metrics[key] for key, label in (("train_loss", "training"), ("val_loss", "validation")) if key in metrics
    }
    if losses:
        curves.append(("Loss", curve_svg(losses, "loss")))
    if "val_top1" in metrics:
        curves.append(("Validation accuracy", curve_svg({"validation": metrics["val_top1"]}, "top-1")))
    if "val_miou" in metrics:
        shown = {"mean IoU": metrics["val_miou"], "pixel accuracy": metrics["val_pixel_accuracy"]}
        curves.append(("Validation", curve_svg(shown, "share")))
    accuracies = {
        label: metrics[key] for key, label in (("knn_top1", "kNN"), ("probe_top1", "linear probe")) if key in metrics
    }
    if accuracies:
        levels = {
            f"{label}, random weights": results[key]
            for key, label in (("knn_top1_random", "kNN"), ("probe_top1_random", "linear probe"))
            if key in results
        }
        curves.append(("Accuracy on frozen features", curve_svg(accuracies, "top-1", levels=levels)))
    if "rankme" in metrics:
        levels = {"random weights": results["rankme_random"]} if "rankme_random" in results else {}
        drawn = curve_svg({"this encoder": metrics["rankme"]}, "RankMe", levels=levels)
        curves.append(("Dimensions that the features use", drawn))
    return curves
