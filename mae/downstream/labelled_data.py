"""The labelled data of a second stage, and what the run takes from a look at them."""

from __future__ import annotations

from dataclasses import dataclass

from mae.checkpoints.format import Checkpoint
from mae.config.choosing.images import choose_loading
from mae.config.choosing.model import choose_images_and_model
from mae.config.composing import load_preset
from mae.config.schema.roots import FinetuneConfig
from mae.data.inspection import Inspection, inspect_images
from mae.data.source import Splits
from mae.downstream.starting_weights import follow_checkpoint
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
    return look


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
