"""What a result stands beside: the same network at random weights on the same budget, and raw pixels."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from mae.config.choosing.finetuning import from_scratch
from mae.config.schema.protocols import Finetune
from mae.config.schema.roots import FinetuneConfig
from mae.config.schema.training import CsvLogger
from mae.data.datamodule import ImageData
from mae.downstream.starting_weights import model_of
from mae.evaluation.frozen.features import extract_features, raw_pixels
from mae.evaluation.frozen.logistic import fit_logistic
from mae.models.backbones.backbone import Backbone
from mae.run.setting import Setting

PIXEL_IMAGES = 10_000
"""Labelled images that the classifier of raw pixels learns from, and images that it is scored on, at most."""
PREFIXES = ("random_", "pixels_")
"""What the figures of baselines begin with in results.json."""


def random_config(setting: Setting[FinetuneConfig], encoder: Backbone) -> FinetuneConfig:
    """Return the config of the same run from random weights, nested in the run folder's ``baseline``."""
    config = setting.config.model_copy(deep=True)
    config.run_dir = str(setting.folder.path / "baseline")
    config.checkpoint, config.model = None, model_of(encoder)
    if isinstance(config.protocol, Finetune):
        config.protocol = from_scratch(config.protocol)
    config.baselines, config.trainer.progress, config.logger = False, False, CsvLogger(name="csv")
    return config


def earlier_baselines(results: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of baselines among the results of an earlier part of a run."""
    return {key: value for key, value in results.items() if key.startswith(PREFIXES)}


def classify_pixels(data: ImageData, mean: Tensor, std: Tensor, classes: int) -> dict[str, float]:
    """Score a logistic regression on raw pixels; validation chooses its strength.

    Args:
        data: Labelled images.
        mean: Of the pixels, per channel.
        std: As mean.
        classes: K.

    Returns:
        ``pixels_top1``, the accuracy on the split that is scored, and on how many images it was fitted and scored.
    """
    splits = data.splits
    train, val, scored = (
        extract_features(data.evaluation_loader(source, most=PIXEL_IMAGES), raw_pixels, mean, std)
        for source in (splits.train, splits.val, data.scored[1])
    )
    accuracy = fit_logistic(train, val, classes).accuracy(scored)
    return {"pixels_top1": accuracy, "pixels_labelled_images": len(train[1]), "pixels_images": len(scored[1])}


def start_name(pretrained: bool, frozen: bool) -> str:
    """Return what a person calls the start of a network."""
    if pretrained:
        return "pretrained"
    return "the same encoder, random weights" if frozen else "the same network, from scratch"
