"""The labelled data of a second stage, what the run takes from a look at them, and their features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import lightning as L
from torch import Tensor

from mae.checkpoints.format import Checkpoint
from mae.config.choosing.images import choose_flip, choose_loading
from mae.config.choosing.model import choose_images_and_model
from mae.config.composing import load_preset
from mae.config.schema.roots import FinetuneConfig
from mae.data.datamodule import ImageData
from mae.data.inspection import Inspection, inspect_images
from mae.data.source import Source
from mae.data.splits import Splits
from mae.data.statistics import pixel_tensors
from mae.downstream.starting_weights import follow_checkpoint
from mae.evaluation.frozen.features import extract_features
from mae.run.setting import Setting


@dataclass(frozen=True)
class Labelled:
    """Data with labels.

    Attributes:
        splits: Of the images.
        classes: Names of the K classes.
        described: What the labels are, in words.
    """

    splits: Splits
    classes: tuple[str, ...]
    described: str


def choose_by_data(setting: Setting[FinetuneConfig], labelled: Labelled, checkpoint: Checkpoint | None) -> Inspection:
    """Choose what follows from a look at the images and from the checkpoint: sizes, model, loading.

    Raises:
        ValueError: The data do not fit the checkpoint.
    """
    look = inspect_images(labelled.splits.train)
    if checkpoint is not None:
        follow_checkpoint(setting.choices, checkpoint)
    else:
        choose_images_and_model(setting.choices, look, setting.machine, load_preset)
    choose_loading(setting.choices, look, setting.machine, setting.devices)
    if setting.config.evaluate_only or not setting.config.protocol.trains:
        setting.choices.fill("data.flip", False, "no training")
    choose_flip(setting.choices, look, labelled.splits.undrawn or labelled.splits.train, labelled.splits.train)
    return look


def extract_split(
    setting: Setting[FinetuneConfig],
    data: ImageData,
    trainer: L.Trainer,
    source: Source,
    features: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """Return features (N, ...) and labels (N,) of a split on the CPU, computed where and as precisely as the run computes.

    Args:
        setting: Of the run, whose pixel statistics are known.
        data: Batches, each image once, centre-cropped.
        trainer: Knows the device and the precision.
        source: The split.
        features: Standardised images (B, C, H, W) to (B, ...); what it computes with is on the trainer's device.
    """
    options, device = setting.config.data, trainer.strategy.root_device
    mean, std = (values.to(device) for values in pixel_tensors(options.mean, options.std))
    with trainer.precision_plugin.forward_context():
        return extract_features(data.evaluation_loader(source), features, mean, std)


def describe_splits(train: str, splits: Splits) -> str:
    """Return the splits in words."""
    test = f"test: {len(splits.test):,}, read once, at the end" if splits.test is not None else "no test split"
    return f"{train}; validation: {len(splits.val):,}, {splits.origin}; {test}"


def require_one_device(config: FinetuneConfig, what: str) -> None:
    """Let ``trainer.devices=auto`` mean one, for work that a second device would only repeat.

    Raises:
        ValueError: More are asked for.
    """
    devices = config.trainer.devices
    if devices == "auto":
        config.trainer.devices = 1
    elif devices not in (1, "1") and not (isinstance(devices, list) and len(devices) == 1):
        raise ValueError(f"{what} works on one device: leave trainer.devices={devices} out")
