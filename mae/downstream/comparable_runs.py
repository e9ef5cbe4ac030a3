"""Finished second-stage runs as lines of figures: those that differ by their seed alone are one line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mae.config.reading import leaves
from mae.downstream.baselines import right_pairs
from mae.evaluation.intervals import Interval, mean_interval
from mae.evaluation.paired import Difference, paired_runs
from mae.run.folder import RunFolder

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
        folders: Of the runs that keep what they and their baselines predicted, by seed.
        ahead: By how much each run is ahead of a baseline, as it has found itself, by baseline and seed.
    """

    protocol: str
    weights: str
    labels: str
    settings: dict[str, Any]
    accuracies: dict[Any, float] = field(default_factory=dict)
    random: dict[Any, float] = field(default_factory=dict)
    pixels: dict[Any, float] = field(default_factory=dict)
    folders: dict[Any, Path] = field(default_factory=dict)
    ahead: dict[str, dict[Any, Difference]] = field(default_factory=dict)

    @property
    def name(self) -> tuple[str, str, str]:
        """What a reader tells rows apart by."""
        return self.protocol, self.weights, self.labels

    @property
    def intervals(self) -> tuple[Interval | None, Interval | None, Interval | None]:
        """Mean and 95% interval of the accuracies, from random weights and on raw pixels; None where nothing was measured."""
        ours, random, pixels = (
            mean_interval(list(values.values())) if values else None
            for values in (self.accuracies, self.random, self.pixels)
        )
        return ours, random, pixels

    def difference(self, baseline: str) -> Difference | None:
        """Return by how much the runs are ahead of a baseline, ``random`` or ``pixels``; None where nothing was paired.

        A single run has said so itself, for other images; for several, that have the same images, the interval covers other
        seeds, or draws of the labels, as well.
        """
        pairs = [right_pairs(folder, baseline) for folder in self.folders.values()]
        known = [pair for pair in pairs if pair is not None]
        if len(known) > 1 and len({len(ours) for ours, _ in known}) == 1:
            ours, other = (torch.stack(side) for side in zip(*known, strict=True))
            return paired_runs(ours, other)
        found = list(self.ahead.get(baseline, {}).values())
        return found[0] if len(found) == 1 and not len(known) > 1 else None

    def join(self, other: Line) -> None:
        """Take the runs of a line that differs by its seed alone; of the same seed the other's count."""
        for mine, theirs in (
            (self.accuracies, other.accuracies),
            (self.random, other.random),
            (self.pixels, other.pixels),
            (self.folders, other.folders),
        ):
            mine |= theirs  # type: ignore[operator]
        for baseline, found in other.ahead.items():
            self.ahead.setdefault(baseline, {}).update(found)


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
        for line in _lines(folder, config, results, measured, weights[config["checkpoint"] or "random"]):
            key = json.dumps([line.name, line.settings], sort_keys=True, default=str)
            known = lines.setdefault(key, line)
            if known is not line:
                if known.accuracies.keys() & line.accuracies.keys():
                    warnings.append(
                        f"{folder} repeats an earlier run of seed {config['seed']}: the last of them counts."
                    )
                known.join(line)
    if len(found) > 1:
        warnings.append(
            f"These runs were not measured alike ({'; '.join(map(str, found))}): compare figures within a table, not between them."
        )
    return {measured: list(lines.values()) for measured, lines in found.items()}, list(dict.fromkeys(warnings))


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


def _lines(
    folder: Path, config: dict[str, Any], results: dict[str, Any], measured: Measured, weights: str
) -> list[Line]:
    split, differences = measured.split, results.get("differences", {})
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
        line.folders[seed] = folder
        for baseline, plain in differences.items():
            images = results.get(f"{baseline}_images", measured.images)
            line.ahead[baseline] = {seed: Difference.read(plain, images)}
        return [line]
    kinds = ("", "random_", "pixels_")
    ours, random, pixels = ({seed: results[key]} if (key := f"{kind}knn_top1") in results else {} for kind in kinds)
    lines = [Line("kNN", weights, labels, settings, ours, random, pixels)]
    for budget in results["few_shot"]:
        ours, random, pixels = (_draws(results.get(f"{kind}few_shot", {}).get(budget, []), seed) for kind in kinds)
        lines.append(Line("logistic regression", weights, budget, settings, ours, random, pixels))
    for baseline in ("random", "pixels"):
        few = {"100%": differences.get(f"logistic_{baseline}"), **differences.get(f"few_shot_{baseline}", {})}
        for line in lines:
            plain = differences.get(f"knn_{baseline}") if line.protocol == "kNN" else few.get(line.labels)
            if plain:
                line.ahead[baseline] = {seed: Difference.read(plain, measured.images)}
    return lines


def _draws(accuracies: Sequence[float], seed: int) -> dict[Any, float]:
    return {(seed, draw): accuracy for draw, accuracy in enumerate(accuracies)}


def _labels(config: dict[str, Any]) -> str:
    if config["labels_per_class"] is not None:
        return f"{config['labels_per_class']} per class"
    share = config["label_fraction"]
    return f"{100 * share:g}%" if share is not None else "100%"


def _plain(value: Any) -> Any:
    """Return whole numbers as such: runs of earlier versions wrote 30 where later ones write 30.0."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
