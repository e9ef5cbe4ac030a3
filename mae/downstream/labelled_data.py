"""What every second stage opens first: the checkpoint, the labelled data, and the encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch

from mae.checkpoints.format import Checkpoint
from mae.checkpoints.load import LoadReport, encoder_from
from mae.checkpoints.read import read_checkpoint
from mae.config.choices import Choices
from mae.config.choosing.images import choose_loading
from mae.config.choosing.model import choose_images_and_model
from mae.config.composing import load_preset
from mae.config.schema.roots import FinetuneConfig
from mae.data.inspection import Inspection, inspect_images
from mae.data.open_splits import open_splits, refuse_stream
from mae.data.source import Splits, Subset, few_labels
from mae.masking.seeds import HEAD, derive_seed
from mae.models.backbones.backbone import Backbone
from mae.models.backbones.create import create_backbone
from mae.models.classifier import Classifier
from mae.models.protocols import create_classifier
from mae.run.setting import Setting, image_size


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


def open_checkpoint(config: FinetuneConfig) -> Checkpoint | None:
    """Read the checkpoint that the config names; None where it asks for random weights.

    Raises:
        ValueError: None is named, or it cannot be read.
        FileNotFoundError: There is nothing at the path.
    """
    if config.checkpoint == "???":
        raise ValueError(
            f"checkpoint is missing: give a run folder{newest_run()}, or checkpoint=null to start from scratch"
        )
    return None if config.checkpoint is None else read_checkpoint(config.checkpoint)


def newest_run() -> str:
    """Return a hint that names the newest pretraining run, where there is one."""
    runs = sorted(Path("runs/pretrain").glob("*/encoder"), key=lambda path: path.stat().st_mtime)
    return f", such as checkpoint={runs[-1].parent}" if runs else ""


def open_labelled(setting: Setting, checkpoint: Checkpoint | None) -> tuple[Splits, Inspection]:
    """Open the labelled data, and choose what follows from them and from the checkpoint: sizes, model, loading.

    Raises:
        ValueError: There are no labels, or fewer than asked for; or the data do not fit the checkpoint.
        FileNotFoundError: The folder does not exist.
    """
    splits = labelled_splits(setting.config, setting.folder.path)
    look = inspect_images(splits.train)
    if checkpoint is not None:
        follow_checkpoint(setting.choices, checkpoint)
    else:
        choose_images_and_model(setting.choices, look, setting.machine, load_preset)
    choose_loading(setting.choices, look, setting.machine, setting.devices)
    return splits, look


def labelled_splits(config: FinetuneConfig, run_dir: Path | None = None) -> Splits:
    """Open labelled data, with the draw of training labels that the config asks for.

    Raises:
        ValueError: There are no labels, fewer than asked for, or none of a class that is to be recognised.
    """
    refuse_stream(config.data)
    splits = open_splits(config.data, run_dir)
    source, train = config.data.source, splits.train
    if source == "segmentation_folder":
        raise ValueError(
            "data=segmentation_folder has masks, and labels of no whole image: task=segmentation learns from masks"
        )
    if train.labels is None:
        raise ValueError(
            f"protocol={config['protocol']['name']} needs labels, and data={source} has none: data=image_folder reads them from "
            f"folders, train/<class>/, and data=arrays from train_labels.npy"
        )
    if len(train.classes) < 2:
        raise ValueError(f"data={source} has one class, {train.classes[0]!r}: a classifier needs two or more")
    counts = np.bincount(train.labels, minlength=len(train.classes))
    if (counts > 0).sum() < 2:
        raise ValueError(
            f"data={source} has {len(train.classes)} classes, and only {train.classes[counts.argmax()]!r} has training images: a "
            f"classifier needs two or more"
        )
    for name, split in (("validation", splits.val), ("test", splits.test)):
        if split is not None and split.labels is not None:
            unseen = np.flatnonzero((np.bincount(split.labels, minlength=len(counts)) > 0) & (counts == 0))
            if len(unseen):
                raise ValueError(
                    f"the class {train.classes[unseen[0]]!r} has images for {name} and none for training: add some, or leave the "
                    f"class out"
                )
    chosen = few_labels(train.labels, train.classes, config.seed, config.labels_per_class, config.label_fraction)
    return splits if len(chosen) == len(train) else replace(splits, train=Subset(train, chosen))


def follow_checkpoint(choices: Choices, checkpoint: Checkpoint) -> None:
    """Take image size, channels, statistics and model from the checkpoint.

    Raises:
        ValueError: A value that the user gave says otherwise.
    """
    encoder = checkpoint.config.encoder
    choices.fill("data.image_size", encoder["image_size"], "the checkpoint's")
    choices.fill("data.channels", encoder["in_channels"], "the checkpoint's")
    for key in ("mean", "std"):
        if checkpoint.config.get(f"pixel_{key}") is not None:
            choices.fill(f"data.{key}", list(checkpoint.config[f"pixel_{key}"]), "the checkpoint's")
    given = {
        f"model.{key}": (choices.get(f"model.{key}"), encoder.get(key))
        for key in ("name", "patch_size", "width", "depth", "heads", "stem", "tokens", "token_width", "cnn", "init")
    }
    given["data.channels"] = choices.get("data.channels"), encoder["in_channels"]
    for key, (wanted, stored) in given.items():
        if wanted is not None and stored is not None and wanted != stored:
            raise ValueError(
                f"{key}={wanted} does not fit the checkpoint {checkpoint.source}, which has {stored}: leave {key} out, or "
                f"checkpoint=null trains another model from scratch"
            )


def build_encoder(config: FinetuneConfig, checkpoint: Checkpoint | None) -> tuple[Backbone, LoadReport | None]:
    """Build the encoder: with the checkpoint's weights, or at random, as the seed decides."""
    L.seed_everything(config.seed, verbose=False)
    drop_path = config.protocol.get("drop_path", 0.0)
    if checkpoint is not None:
        return encoder_from(checkpoint, image_size=image_size(config), drop_path=drop_path)
    return create_backbone(
        image_size=image_size(config), in_channels=config.data.channels, drop_path=drop_path, **config.model
    ), None


def build_classifier(
    config: FinetuneConfig, protocol: Mapping[str, Any], encoder: Backbone, classes: int
) -> Classifier:
    """Put a protocol's head on an encoder; the head's weights follow from the seed alone, whatever the encoder's."""
    torch.manual_seed(derive_seed(HEAD, config.seed))
    return create_classifier(encoder, classes, protocol)


def model_config(encoder: Backbone) -> FinetuneConfig:
    """Return the config group ``model`` that builds this encoder again, at random weights."""
    return {key: value for key, value in encoder.config.items() if key not in ("image_size", "in_channels")}
