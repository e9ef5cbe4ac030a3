"""What a result stands beside: the same network at random weights on the same budget, and raw pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from mae.config.choosing.finetuning import from_scratch
from mae.config.schema.roots import FinetuneConfig
from mae.config.schema.training import CsvLogger
from mae.data.datamodule import ImageData
from mae.data.source import drawn
from mae.downstream.starting_weights import model_of
from mae.evaluation.classification_scores import paired_right, read_right, write_predictions
from mae.evaluation.frozen.features import extract_features, raw_pixels
from mae.evaluation.frozen.logistic import fit_logistic
from mae.models.backbones.backbone import Backbone
from mae.run.setting import Setting

PIXEL_IMAGES = 10_000
"""Labelled images that the classifier of raw pixels learns from, and images that it is scored on, at most."""
PREDICTIONS_FILE, PIXELS_FILE = "predictions.csv", "pixels_predictions.csv"
"""What a run predicts, and beside it what the classifier of raw pixels does."""
BASELINE = "baseline"
"""The folder of the run from random weights, in that of the run."""
PREFIXES = ("random_", "pixels_")
"""What the figures of baselines begin with in results.json."""


def random_config(setting: Setting[FinetuneConfig], encoder: Backbone) -> FinetuneConfig:
    """Return the config of the same run from random weights, nested in the run folder."""
    config = from_scratch(setting.config, encoder.depth, encoder.width)
    config.run_dir, config.model = str(setting.folder.path / BASELINE), model_of(encoder)
    config.baselines, config.trainer.progress, config.logger = False, False, CsvLogger(name="csv")
    return config


def earlier_baselines(results: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of baselines among the results of an earlier part of a run."""
    return {key: value for key, value in results.items() if key.startswith(PREFIXES)}


def classify_pixels(
    data: ImageData, mean: Tensor, std: Tensor, classes: Sequence[str], path: Path | None = None
) -> dict[str, float]:
    """Score a logistic regression on raw pixels; validation chooses its strength.

    Args:
        data: Labelled images.
        mean: Of the pixels, per channel.
        std: As mean.
        classes: Names of the K classes.
        path: Where to write what it predicts, so that it can be paired with what a network does; None on all processes
            but the first.

    Returns:
        ``pixels_top1``, the accuracy on the split that is scored, and on how many images it was fitted and scored.
    """
    splits, (_, source) = data.splits, data.scored
    train, val, scored = (
        extract_features(data.evaluation_loader(one, most=PIXEL_IMAGES), raw_pixels, mean, std)
        for one in (splits.train, splits.val, source)
    )
    fit = fit_logistic(train, val, len(classes))
    if path is not None:
        names = [source.name(int(index)) for index in drawn(len(source), PIXEL_IMAGES)]
        write_predictions(path, names, scored[1], fit.predict(scored[0]), classes)
    return {
        "pixels_top1": fit.accuracy(scored),
        "pixels_labelled_images": len(train[1]),
        "pixels_images": len(scored[1]),
    }


def right_pairs(folder: Path, baseline: str) -> tuple[Tensor, Tensor] | None:
    """Return whether a finished run and one of its baselines have each image right.

    Args:
        folder: Of the run.
        baseline: ``random`` or ``pixels``.

    Returns:
        Two bools (N,) of the images that both scored; None where an earlier version kept no predictions.
    """
    others = {"random": folder / BASELINE / PREDICTIONS_FILE, "pixels": folder / PIXELS_FILE}
    paths = folder / PREDICTIONS_FILE, others[baseline]
    if not all(path.is_file() for path in paths):
        return None
    ours, other = paired_right(*map(read_right, paths))
    return (ours, other) if len(ours) else None


def start_name(pretrained: bool, frozen: bool) -> str:
    """Return what a person calls the start of a network."""
    if pretrained:
        return "pretrained"
    return "the same encoder, random weights" if frozen else "the same network, from scratch"
