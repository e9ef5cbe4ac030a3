"""One table over many second-stage runs, in Markdown and CSV: means and 95% intervals over seeds, baselines beside."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from mae.downstream.baselines import PIXEL_IMAGES
from mae.downstream.comparable_runs import Line, Measured, collect
from mae.evaluation.intervals import Interval, accuracy_estimate
from mae.report.tables import Row, Table, to_markdown

NAMES = ("protocol", "weights", "labels", "setting")
AHEAD = {"random": "pretraining", "pixels": "beside raw pixels"}
"""Columns of differences by baseline."""
HEAD = (*NAMES, "runs", "top-1", "random weights", "raw pixels", *AHEAD.values())
ALWAYS = 3
"""How many of the first columns are shown even where they say nothing."""


def write_results_tables(folders: Sequence[Path], into: Path) -> tuple[list[Table], list[str]]:
    """Write ``table.md`` and ``table.csv`` over finished runs; return the tables and warnings.

    Raises:
        ValueError: A folder holds no finished run of the second stage.
    """
    lines, warnings = collect(folders)
    tables = results_tables(lines)
    into.mkdir(parents=True, exist_ok=True)
    text = "\n".join([*(f"**{warning}**\n" for warning in warnings), *(to_markdown(table) for table in tables)])
    (into / "table.md").write_text(text, encoding="utf-8")
    _write_csv(into / "table.csv", lines)
    return tables, warnings


def results_tables(lines: Mapping[Measured, Sequence[Line]]) -> list[Table]:
    """Return a table for each set of images."""
    return [_table(measured, rows) for measured, rows in lines.items()]


def _table(measured: Measured, lines: Sequence[Line]) -> Table:
    rows = []
    for line, setting in zip(lines, _settings(lines), strict=True):
        images = (measured.images, measured.images, min(measured.images, PIXEL_IMAGES))
        figures = [
            "" if interval is None else _figure(line, interval, count)
            for interval, count in zip(line.intervals, images, strict=True)
        ]
        differences = (line.difference(baseline) for baseline in AHEAD)
        words = ["" if one is None else f"{one.word}, {one}" for one in differences]
        rows.append((*line.name, setting, str(len(line.accuracies)), *figures, *words))
    used = [number for number in range(len(HEAD)) if number < ALWAYS or any(row[number] for row in rows)]
    return Table(
        str(measured),
        [HEAD[number] for number in used],
        [Row([row[number] for number in used]) for row in rows],
        "Top-1 accuracy, or mean IoU; mean and 95% interval over the runs (seeds, or draws of the labels), or over the images of a "
        "single run. Words and differences are paired over the images, and over the runs where there are several.",
        names=sum(number < len(NAMES) for number in used),
    )


def _figure(line: Line, interval: Interval, images: int) -> str:
    """Return a mean with its interval; an accuracy of a single run has that over the images."""
    if interval.count > 1 or line.protocol.startswith("segmentation"):
        return str(interval)
    return str(accuracy_estimate(interval.mean, images))


def _write_csv(path: Path, lines: Mapping[Measured, Sequence[Line]]) -> None:
    figures = [f"{name}_{part}" for name in ("top1", "random_top1", "pixels_top1") for part in ("mean", "half_width")]
    ahead = [f"ahead_of_{baseline}_{part}" for baseline in AHEAD for part in ("mean", "low", "high", "word")]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["data", "split", "images", *NAMES, "runs", *figures, *ahead])
        for measured, rows in lines.items():
            for line, setting in zip(rows, _settings(rows), strict=True):
                cells: list[float | str | None] = [
                    cell
                    for interval in line.intervals
                    for cell in ((None, None) if interval is None else (interval.mean, interval.half_width))
                ]
                where = (measured.data, measured.split, measured.images)
                for baseline in AHEAD:
                    one = line.difference(baseline)
                    cells += [None] * 4 if one is None else [*one.plain, one.word]
                writer.writerow([*where, *line.name, setting, len(line.accuracies), *cells])


def _settings(lines: Sequence[Line]) -> list[str]:
    """Return what tells each line from others of the same name: the keys in which those differ."""
    words = []
    for line in lines:
        alike = [other.settings for other in lines if other.name == line.name]
        keys = dict.fromkeys(key for settings in alike for key in settings)
        differing = [key for key in keys if len({str(settings.get(key)) for settings in alike}) > 1]
        words.append(" ".join(f"{key}={line.settings.get(key)}" for key in differing))
    return words
