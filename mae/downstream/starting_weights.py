"""Where a second stage starts from: the encoder of a checkpoint, or the same one at random weights."""

from __future__ import annotations

from pathlib import Path

import lightning as L

from mae.checkpoints.format import Checkpoint
from mae.checkpoints.load import LoadReport, encoder_from
from mae.checkpoints.read import read_checkpoint
from mae.config.choices import Choices
from mae.config.schema.components import Component
from mae.config.schema.protocols import Tuning
from mae.config.schema.roots import FinetuneConfig
from mae.masking.seeds import HEAD, derive_seed
from mae.models.backbones.backbone import Backbone
from mae.models.backbones.create_backbone import create_backbone
from mae.run.setting import image_size

NOT_GIVEN = "???"
"""What Hydra writes where a value is missing."""
NOT_COMPARED = ("image_size", "in_channels", "positions", "options")
"""What a checkpoint says of its encoder that ``model`` does not hold, or holds also where nobody gave it."""


def head_seed(seed: int) -> int:
    """Return the seed of what is put on an encoder: its weights follow from it alone, whatever the encoder's."""
    return derive_seed(HEAD, seed)


def read_starting_checkpoint(config: FinetuneConfig) -> Checkpoint | None:
    """Read the checkpoint that the config names; None where it asks for random weights.

    Raises:
        ValueError: None is named, or it cannot be read.
        FileNotFoundError: There is nothing at the path.
    """
    if config.checkpoint == NOT_GIVEN:
        raise ValueError(
            f"checkpoint is missing: give a run folder{newest_run()}, or checkpoint=null to start from scratch"
        )
    return None if config.checkpoint is None else read_checkpoint(config.checkpoint)


def newest_run() -> str:
    """Return a hint that names the newest pretraining run, where there is one."""
    runs = sorted(Path("runs/pretrain").glob("*/encoder"), key=lambda path: path.stat().st_mtime)
    return f", such as checkpoint={runs[-1].parent}" if runs else ""


def follow_checkpoint(choices: Choices[FinetuneConfig], checkpoint: Checkpoint) -> None:
    """Take image size, channels, statistics and model from the checkpoint.

    Raises:
        ValueError: A value that the user gave says otherwise.
    """
    encoder = checkpoint.config["encoder"]
    size = encoder["image_size"]
    choices.fill("data.image_size", list(size) if isinstance(size, tuple) else size, "the checkpoint's")
    choices.fill("data.channels", encoder["in_channels"], "the checkpoint's")
    for key in ("mean", "std"):
        if checkpoint.config.get(f"pixel_{key}") is not None:
            choices.fill(f"data.{key}", list(checkpoint.config[f"pixel_{key}"]), "the checkpoint's")
    given = {
        f"model.{key}": (choices.get(f"model.{key}"), stored)
        for key, stored in encoder.items()
        if key not in NOT_COMPARED
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
    drop_path = config.protocol.drop_path if isinstance(config.protocol, Tuning) else 0.0
    if checkpoint is not None:
        return encoder_from(checkpoint, image_size=image_size(config), drop_path=drop_path)
    return create_backbone(
        image_size=image_size(config),
        in_channels=config.data.channels,
        drop_path=drop_path,
        **config.model.arguments,
    ), None


def model_of(encoder: Backbone) -> Component:
    """Return the config group ``model`` that builds this encoder again, at random weights."""
    return Component.model_validate(
        {key: value for key, value in encoder.config.items() if key not in ("image_size", "in_channels")}
    )
