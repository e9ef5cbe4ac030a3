"""One table over many second-stage runs, in Markdown and CSV: means and 95% intervals over seeds, baselines beside."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mae.config.reading import leaves
from mae.evaluation.intervals import mean_interval
from mae.report.tables import Row, Table, to_markdown
from mae.run.folder import RunFolder

HEAD = ("protocol", "weights", "labels", "setting", "runs", "top-1", "random weights", "raw pixels")
NOT_SETTINGS = (
    "seed",
    "run_dir",
    "checkpoint",
    "trainer",
    "logger",
    "callbacks",
    "resume",
    "baselines",
    "evaluate_only",
    "data",
)
"""Parts of a config that do not make another row; what is set in ``data`` is looked at by itself."""
LATER = {
    "optim.schedule": "cosine",
    "optim.step_epochs": 30,
    "task.name": "classification",
    "debug.overfit": False,
    "debug.steps": None,
    "debug.profiler": False,
}
LATER_TUNED = {"protocol.head": "linear", "protocol.hidden": None, "protocol.activation": "gelu"}
"""What runs of earlier versions did, whose configs lack these keys."""


@dataclass(frozen=True)
class Measured:
    """Which images the figures of a run are of; only figures of the same images can be compared."""

    data: str
    split: str
    images: int

    def __str__(self) -> str:
        return f"{self.data}, {self.images:,} {'validation' if self.split == 'val' else self.split} images"


@dataclass
class Line:
    """Runs that differ by their seed alone.

    Attributes:
        protocol: Or the measure, where nothing is trained.
        weights: The checkpoint of the encoder, or ``random``.
        labels: How many training labels.
        settings: What else was set.
        accuracies: Top-1 by seed or draw.
        random: The same from random weights.
        pixels: The same on raw pixels.
    """

    protocol: str
    weights: str
    labels: str
    settings: dict[str, Any]
    accuracies: dict[Any, float] = field(default_factory=dict)
    random: dict[Any, float] = field(default_factory=dict)
    pixels: dict[Any, float] = field(default_factory=dict)

    @property
    def name(self) -> tuple[str, str, str]:
        """What a reader tells rows apart by."""
        return self.protocol, self.weights, self.labels


def collect(folders: Iterable[Path]) -> tuple[dict[Measured, list[Line]], list[str]]:
    """Read finished runs.

    Returns:
        Lines by the images that they were measured on, in the order of the folders; and warnings: runs of the same seed, of which
        the last counts, and runs that were not measured alike.

    Raises:
        ValueError: A folder holds no finished run of the second stage.
    """
    found: dict[Measured, dict[str, Line]] = {}
    warnings: list[str] = []
    runs = [(folder, *_read(folder)) for folder in folders]
    data = _short([_data(config) for _, config, _ in runs])
    weights = _short([config["checkpoint"] or "random" for _, config, _ in runs])
    for folder, config, results in runs:
        measured = _measured(data[_data(config)], results, folder)
        lines = found.setdefault(measured, {})
        for line in _lines(config, results, measured.split, weights[config["checkpoint"] or "random"]):
            key = json.dumps([line.name, line.settings], sort_keys=True, default=str)
            known = lines.setdefault(key, line)
            if known is not line:
                if known.accuracies.keys() & line.accuracies.keys():
                    warnings.append(
                        f"{folder} repeats an earlier run of seed {config['seed']}: the last of them counts."
                    )
                known.accuracies |= line.accuracies
                known.random |= line.random
                known.pixels |= line.pixels
    if len(found) > 1:
        warnings.append(
            f"These runs were not measured alike ({'; '.join(map(str, found))}): compare figures within a table, not between them."
        )
    return {measured: list(lines.values()) for measured, lines in found.items()}, list(dict.fromkeys(warnings))


def results_tables(lines: dict[Measured, list[Line]]) -> list[Table]:
    """Return a table for each set of images."""
    return [_table(measured, rows) for measured, rows in lines.items()]


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
    with (into / "table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        columns = ("protocol", "weights", "labels", "setting")
        figures = [
            f"{name}_{part}" for name in ("top1", "random_top1", "pixels_top1") for part in ("mean", "half_width")
        ]
        writer.writerow(["data", "split", "images", *columns, "runs", *figures])
        for measured, rows in lines.items():
            for line, setting in zip(rows, _settings(rows), strict=True):
                cells: list[Any] = []
                for values in (line.accuracies, line.random, line.pixels):
                    interval = mean_interval(list(values.values())) if values else None
                    cells += [interval.mean, interval.half_width] if interval else [None, None]
                where = (measured.data, measured.split, measured.images)
                writer.writerow([*where, *line.name, setting, len(line.accuracies), *cells])
    return tables, warnings


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    run = RunFolder(folder, resume=True)
    config, results = run.stored_config, run.earlier_results()
    if config is None or not results:
        missing = "results.json" if config else "config.yaml"
        raise ValueError(f"{folder} is not the folder of a finished run: it has no {missing}")
    if results.get("stage") not in ("finetune", "features", "evaluate"):
        raise ValueError(f"{folder} is a pretraining run: the table is of runs of train_finetune.py")
    return config, results


def _data(config: dict[str, Any]) -> str:
    """Return what identifies the data: a known name, the folder, or the source."""
    options = config["data"]
    return str(options.get("name") or options.get("root") or options["source"])


def _short(paths: Sequence[str]) -> dict[str, str]:
    """Return the name of the run or folder for each path, and the whole path where two names are the same."""
    known = ("checkpoints", "encoder", "last.ckpt", "best.ckpt")
    names = {path: next((part for part in reversed(Path(path).parts) if part not in known), path) for path in paths}
    return {path: name if list(names.values()).count(name) == 1 else path for path, name in names.items()}


def _measured(data: str, results: dict[str, Any], folder: Path) -> Measured:
    split = "test" if "test_images" in results else "val"
    if f"{split}_images" not in results:
        raise ValueError(f"{folder / 'results.json'} does not say how many images were scored: run it again")
    return Measured(data, split, results[f"{split}_images"])


def _lines(config: dict[str, Any], results: dict[str, Any], split: str, weights: str) -> list[Line]:
    tuned = LATER_TUNED if config["protocol"]["name"] in ("finetune", "partial_finetune") else {}
    given = {**LATER, **tuned, **leaves(config)}
    settings = {key: _plain(value) for key, value in given.items() if key.partition(".")[0] not in NOT_SETTINGS}
    settings |= {f"data.{key}": config["data"].get(key) for key in ("image_size", "channels")}
    for key in ("labels_per_class", "label_fraction"):
        settings.pop(key, None)
    labels, seed = "" if results["stage"] == "evaluate" else _labels(config), config["seed"]
    if results["stage"] != "features":
        segmentation = results.get("task") == "segmentation"
        name, score = ("segmentation, mean IoU", "miou") if segmentation else (results["protocol"], "top1")
        line = Line(name, weights, labels, settings, {seed: results[f"{split}_{score}"]})
        line.random |= {seed: results[f"random_{score}"]} if f"random_{score}" in results else {}
        line.pixels |= {seed: results["pixels_top1"]} if "pixels_top1" in results else {}
        return [line]
    knn = Line("kNN", weights, labels, settings, {seed: results["knn_top1"]})
    lines = [knn]
    for budget in results["few_shot"]:
        lines.append(Line("logistic regression", weights, budget, settings, _draws(results, "", budget, seed)))
    for prefix, name in (("random_", "random"), ("pixels_", "pixels")):
        if f"{prefix}knn_top1" in results:
            getattr(knn, name)[seed] = results[f"{prefix}knn_top1"]
            for line in lines[1:]:
                getattr(line, name).update(_draws(results, prefix, line.labels, seed))
    return lines


def _plain(value: Any) -> Any:
    """Return whole numbers as such: runs of earlier versions wrote 30 where later ones write 30.0."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _draws(results: dict[str, Any], prefix: str, budget: str, seed: int) -> dict[Any, float]:
    return {(seed, draw): value for draw, value in enumerate(results[f"{prefix}few_shot"].get(budget, []))}


def _labels(config: dict[str, Any]) -> str:
    if config["labels_per_class"] is not None:
        return f"{config['labels_per_class']} per class"
    share = config["label_fraction"]
    return f"{100 * share:g}%" if share is not None else "100%"


def _settings(lines: Sequence[Line]) -> list[str]:
    """Return what tells each line from others of the same name: the keys in which those differ."""
    words = []
    for line in lines:
        alike = [other.settings for other in lines if other.name == line.name]
        keys = dict.fromkeys(key for settings in alike for key in settings)
        differing = [key for key in keys if len({str(settings.get(key)) for settings in alike}) > 1]
        words.append(" ".join(f"{key}={line.settings.get(key)}" for key in differing))
    return words


def _table(measured: Measured, lines: Sequence[Line]) -> Table:
    rows = []
    for line, setting in zip(lines, _settings(lines), strict=True):
        figures = [
            str(mean_interval(list(values.values()))) if values else ""
            for values in (line.accuracies, line.random, line.pixels)
        ]
        rows.append((*line.name, setting, str(len(line.accuracies)), *figures))
    used = [number for number in range(len(HEAD)) if number < 4 - 1 or any(row[number] for row in rows)]
    return Table(
        str(measured),
        [HEAD[number] for number in used],
        [Row([row[number] for number in used]) for row in rows],
        "Top-1 accuracy, or mean IoU; mean and 95% interval over the runs (seeds, or draws of the labels).",
        names=len([number for number in used if number < 4]),
    )
