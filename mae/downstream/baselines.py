"""What a result stands beside: the same network at random weights on the same budget, and raw pixels."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

from mae.config.schema.roots import FinetuneConfig
from mae.data.datamodule import ImageData
from mae.downstream.labelled_data import model_config
from mae.evaluation.frozen.features import extract_features, raw_pixels
from mae.evaluation.frozen.logistic import fit_logistic
from mae.models.backbones.backbone import Backbone
from mae.models.protocols import PROBES
from mae.report.tables import Row, Table
from mae.run.setting import Setting
from mae.training.classifying import FinetuningModule

PIXEL_IMAGES = 10_000
"""Labelled images that the classifier of raw pixels learns from, and images that it is scored on, at most."""


def baseline_config(setting: Setting, encoder: Backbone) -> FinetuneConfig:
    """Return the config of the same run from random weights, in the run folder's ``baseline``."""
    config = copy.deepcopy(setting.config)
    config.update(
        run_dir=str(setting.folder.path / "baseline"), checkpoint=None, baselines=False, model=model_config(encoder)
    )
    config.trainer.progress = False
    config.logger = {"name": "csv"}
    return config


def earlier_results(config: FinetuneConfig) -> dict[str, Any] | None:
    """Return the results of the baseline where an earlier part of the run has finished it."""
    path = f"{config['run_dir']}/results.json"
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123
            return dict(json.load(file))
    except FileNotFoundError:
        return None


def classify_pixels(module: FinetuningModule, data: ImageData) -> dict[str, float]:
    """Return ``pixels_top1``, the accuracy on the split that is scored of a logistic regression on raw pixels, and on how many
    images it was fitted and scored; validation chooses its strength.
    """  # noqa: D205
    splits = data.splits
    train, val, scored = (
        extract_features(data.evaluation_loader(source, most=PIXEL_IMAGES), raw_pixels, module.mean, module.std)
        for source in (splits.train, splits.val, data.scored[1])
    )
    accuracy = fit_logistic(train, val, len(module.classes)).accuracy(scored)
    return {"pixels_top1": accuracy, "pixels_labelled_images": len(train[1]), "pixels_images": len(scored[1])}


def start_name(protocol: str, pretrained: bool) -> str:
    """Return what a person calls the start of a network."""
    if pretrained:
        return "pretrained"
    return "the same encoder, random weights" if protocol in PROBES else "the same network, from scratch"


def baseline_table(results: Mapping[str, Any], split: str, pretrained: bool) -> Table:
    """Return the run's accuracy beside its baselines."""
    protocol = results["protocol"]
    rows = [Row((start_name(protocol, pretrained), f"{results[f'{split}_top1']:.1%}"), ours=True)]
    if "random_top1" in results:
        rows.append(Row((start_name(protocol, False), f"{results['random_top1']:.1%}")))
    if "pixels_top1" in results:
        used, scored = results["pixels_labelled_images"], results["pixels_images"]
        fewer = f", {used:,} labels" if used < results["labelled_images"] else ""
        fewer += f", {scored:,} images" if scored < results[f"{split}_images"] else ""
        rows.append(Row((f"raw pixels, logistic regression{fewer}", f"{results['pixels_top1']:.1%}")))
    rows.append(Row(("always the commonest class", f"{results['largest_class_share']:.1%}")))
    note = f"Accuracy on {results[f'{split}_images']:,} {split} images, with the same labels and protocol."
    return Table("Beside its baselines", (protocol, "top-1"), rows, note)
