"""Loading: one door for our folders and runs, released files and transformers folders."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mae.checkpoints.format import Checkpoint
from mae.checkpoints.read import read_checkpoint
from mae.models.autoencoder import MaskedAutoencoder
from mae.models.backbones.backbone import Backbone
from mae.models.backbones.create_backbone import create_backbone
from mae.models.cost import count
from mae.models.create_masked_model import rebuild_masked_model
from mae.models.layers.patches import as_pair
from mae.models.layers.whitening import Whitening

log = logging.getLogger(__name__)

DERIVED = {"decoder.positions"}
"""Tables that follow from the grid, and may be missing from a file."""
WHITENING = "encoder.whitening."
"""What files of this project may hold beside the weights."""


@dataclass(frozen=True)
class LoadReport:
    """What became of a file: how many parameters were loaded, and which of its keys were left out, each on purpose."""

    source: str
    kind: str
    loaded: int
    left_out: tuple[str, ...]

    def __str__(self) -> str:
        left = f", left out: {', '.join(self.left_out)}" if self.left_out else ", nothing left out"
        return f"{self.loaded:,} parameters from {self.source} ({self.kind}{left})"


def load_autoencoder(path: str | Path, *, image_size: int | tuple[int, int] | None = None) -> MaskedAutoencoder:
    """Load a masked autoencoder with its decoder.

    Args:
        path: A folder of ``mae.save``, a run folder of pretraining, whose last checkpoint is read and, once it is finished, the
            whitening of its ``encoder/``, a ``.ckpt`` of a run, which holds none, a released MAE ``.pth`` with decoder, or a folder
            that transformers saved from ViTMAEForPreTraining.
        image_size: That the model was trained at, for released files, which do not say it; without it a square is assumed.

    Raises:
        FileNotFoundError: There is nothing at the path.
        ValueError: It is no checkpoint, holds no decoder, or its weights do not fit exactly.
    """
    checkpoint = read_checkpoint(path, image_size=image_size, whole=True)
    stored = checkpoint.config["encoder"]["image_size"]
    if image_size is not None and tuple(stored) != as_pair(image_size):
        raise ValueError(f"{path} was trained at {stored[0]}x{stored[1]}: leave image_size={image_size} out")
    model = autoencoder_from(checkpoint)[0]
    finished = Path(path) / "encoder"
    if (finished / "config.json").is_file():
        _take_whitening(model.encoder, read_checkpoint(finished).state)
    return model


def load_encoder(path: str | Path, *, image_size: int | tuple[int, int] | None = None) -> Backbone:
    """Load an encoder from anything that load_autoencoder takes, and from encoder-only files.

    Args:
        path: As for load_autoencoder, where of a run folder ``encoder/`` is read: the last weights of pretraining, and those of a
            second stage that were best on validation, as its score is of them. Also a released encoder-only ``.pth`` or a timm ViT
            state dict.
        image_size: Side or (H, W) in pixels to use it at; positions are resampled from the stored grid.

    Raises:
        FileNotFoundError: There is nothing at the path.
        ValueError: It is no checkpoint, or its weights do not fit exactly.
    """
    return encoder_from(read_checkpoint(path), image_size=image_size)[0]


def autoencoder_from(checkpoint: Checkpoint) -> tuple[MaskedAutoencoder, LoadReport]:
    """Build the autoencoder that a checkpoint describes, with its weights."""
    if "objective" in checkpoint.config and not checkpoint.has_decoder:
        objective = checkpoint.config["objective"]
        raise ValueError(
            f"{checkpoint.source} was trained by {objective.get('name') or objective['_target_']}, which has no decoder: "
            f"mae.load_encoder reads its encoder"
        )
    if not checkpoint.has_decoder:
        raise ValueError(
            f"{checkpoint.source} holds an encoder alone, and reconstruction needs the decoder: "
            f"give the run's checkpoints/last.ckpt, or a file saved with its decoder"
        )
    _require_size(checkpoint)
    config = checkpoint.config
    model = rebuild_masked_model({**config, "encoder": _without_tag(config["encoder"])})
    assert isinstance(model, MaskedAutoencoder), "it has a decoder"
    _keep_statistics(model.encoder, checkpoint)
    return model, _load(model, checkpoint, keep=("encoder.", "decoder."), strip="")


def encoder_from(
    checkpoint: Checkpoint, *, image_size: int | tuple[int, int] | None = None, drop_path: float = 0.0
) -> tuple[Backbone, LoadReport]:
    """Build the encoder that a checkpoint describes, with its weights, for an image size of choice."""
    config = dict(checkpoint.config["encoder"])
    if config["image_size"] is None and image_size is not None:
        config["image_size"] = list(as_pair(image_size))
    _require_size(checkpoint, config)
    trained_at = as_pair(config["image_size"])
    if image_size is not None:
        config["image_size"] = as_pair(image_size)
    encoder = create_backbone(**_without_tag(config), drop_path=drop_path)
    weights = {key.removeprefix("encoder."): value for key, value in checkpoint.state.items() if _of_encoder(key)}
    fitting = {f"encoder.{key}": value for key, value in encoder.fit_weights(weights, trained_at).items()}
    rest = {key: value for key, value in checkpoint.state.items() if not _of_encoder(key)}
    checkpoint = replace(checkpoint, state={**rest, **fitting})
    _keep_statistics(encoder, checkpoint)
    return encoder, _load(encoder, checkpoint, keep=("encoder.",), strip="encoder.")


def _without_tag(encoder: dict[str, Any]) -> dict[str, Any]:
    """Return the config of an encoder whose name may hold the tag of weights that it was never given."""
    return {**encoder, "name": encoder["name"].partition(".")[0]} if encoder.get("name") else encoder


def _of_encoder(key: str) -> bool:
    return key.startswith("encoder.")


def _require_size(checkpoint: Checkpoint, config: dict[str, Any] | None = None) -> None:
    if (config or checkpoint.config["encoder"])["image_size"] is None:
        raise ValueError(
            f"{checkpoint.source} has positions that make no square, and does not say its image size: pass image_size=(H, W)"
        )


def _keep_statistics(encoder: Backbone, checkpoint: Checkpoint) -> None:
    """Keep the statistics of the pixels, and make room for those of the features, where there are some."""
    config = checkpoint.config
    if config.get("pixel_mean") is not None:
        encoder.set_pixel_statistics(config["pixel_mean"], config["pixel_std"])
    if any(key.startswith(WHITENING) for key in checkpoint.state):
        encoder.whitening = Whitening(encoder.width)


def _take_whitening(encoder: Backbone, state: dict[str, Tensor]) -> None:
    """Take the whitening out of the weights of a finished encoder, if they are those of this one otherwise."""
    fitted = {key.removeprefix(WHITENING): value for key, value in state.items() if key.startswith(WHITENING)}
    own = encoder.state_dict()
    rest = {key.removeprefix("encoder."): value for key, value in state.items() if not key.startswith(WHITENING)}
    if fitted and own.keys() == rest.keys() and all(torch.equal(own[key], value) for key, value in rest.items()):
        encoder.whitening = Whitening(encoder.width)
        encoder.whitening.load_state_dict(fitted)


def _load(module: nn.Module, checkpoint: Checkpoint, keep: tuple[str, ...], strip: str) -> LoadReport:
    """Load exactly: a key that is missing, left over or of another shape is an error unless it is listed."""
    state = {key.removeprefix(strip): value for key, value in checkpoint.state.items() if key.startswith(keep)}
    left_out = sorted(checkpoint.ignored + [key for key in checkpoint.state if not key.startswith(keep)])
    wanted = module.state_dict()
    wrong = [
        f"{key} is {tuple(state[key].shape)}, not {tuple(wanted[key].shape)}"
        for key in sorted(wanted.keys() & state.keys())
        if state[key].shape != wanted[key].shape
    ]
    missing = sorted(wanted.keys() - state.keys() - DERIVED)
    surplus = sorted(state.keys() - wanted.keys())
    for what, keys in (("of another shape", wrong), ("missing", missing), ("unknown here", surplus)):
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise ValueError(f"{checkpoint.source} does not fit the model, weights {what}: {', '.join(keys[:3])}{more}")
    module.load_state_dict(state, strict=False)
    for name in ("encoder.vit.pos_embed", "decoder.positions"):
        if name in checkpoint.state and not checkpoint.state[name].any():
            log.warning("%s: every row of %s is zero, so nothing tells the patches apart", checkpoint.source, name)
    weights = (
        value for key, value in checkpoint.state.items() if key.startswith(keep) and not key.startswith(WHITENING)
    )
    return LoadReport(checkpoint.source, checkpoint.kind, count(weights), _summarise(left_out))


def _summarise(keys: list[str]) -> tuple[str, ...]:
    """Name left-out keys by their first word, with a count: ``decoder.* (20)``."""
    groups: dict[str, int] = {}
    for key in keys:
        stem = key.partition(".")[0]
        groups[stem] = groups.get(stem, 0) + 1
    return tuple(f"{stem}.* ({count})" if count > 1 else stem for stem, count in groups.items())
