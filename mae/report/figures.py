"""Drawings of results as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from mae.report.drawing import COLOURS, drawing

MANY_CLASSES = 30
"""More have no room for their names beside a confusion matrix."""

Point = tuple[float, float, float | None]
"""x, y, and half the height of an interval, where there is one."""


def lines_svg(lines: Mapping[str, Sequence[Point]], xlabel: str, ylabel: str) -> str:
    """Draw lines, points by label, with their intervals over a logarithmic axis."""
    with drawing() as result:
        axes = result.axes
        for number, (label, points) in enumerate(lines.items()):
            x, y, half = zip(*points, strict=True)
            colour = COLOURS[(1 + number) % 4]
            axes.plot(x, y, label=label, color=colour, marker="o", markersize=3, linewidth=1.4)
            low = [value - (h or 0) for value, h in zip(y, half, strict=True)]
            high = [value + (h or 0) for value, h in zip(y, half, strict=True)]
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        axes.legend(fontsize=8)
    return result.svg


def confusion_svg(confusion: Tensor, classes: Sequence[str]) -> str:
    """Draw a confusion matrix (K, K), rows true, each row as shares of its class."""
    shares = confusion / confusion.sum(dim=1, keepdim=True).clamp_min(1)
    few = len(classes) <= MANY_CLASSES
    with drawing(6.2, 5.4, framed=True) as result:
        axes = result.axes
        axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
        if few:
            names: dict[str, Any] = {"labels": list(classes), "fontsize": 8, "parse_math": False}
            axes.set_xticks(range(len(classes)), rotation=45, ha="right", **names)
            axes.set_yticks(range(len(classes)), **names)
            for row, values in enumerate(shares.tolist()):
                for column, share in enumerate(values):
                    if share >= 0.005:
                        colour = "white" if share > 0.5 else "#1d2733"
                        axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=7, color=colour)
        axes.set_xlabel("predicted, in % of the true class" if few else "predicted")
        axes.set_ylabel("true")
    return result.svg
