"""Loading: one door for our folders and runs, released files and transformers folders."""

from __future__ import annotations

import argparse
import json
import logging
import pickle
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from mae.checkpoints.format import FORMAT, Checkpoint
from mae.checkpoints.translate import from_released, from_transformers
from mae.models.autoencoder import MaskedAutoencoder, create_autoencoder
from mae.models.backbones.backbone import Backbone
from mae.models.backbones.create import create_backbone
from mae.models.backbones.encoder import Encoder
from mae.models.layers.patches import as_pair, patch_grid
from mae.models.layers.positions import resample_positions

log = logging.getLogger(__name__)

# What the unpickler was seen to raise on text, on random bytes and on files that are cut off.
UNREADABLE = (
    *(pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, ValueError),
    *(LookupError, AttributeError, TypeError, AssertionError),
)

DERIVED = {"decoder.positions"}
"""Tables that follow from the grid, and may be missing from a file."""


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
        path: A folder of ``mae.save``, a run folder, a ``.ckpt`` of a run, a released MAE ``.pth`` with decoder, or a folder
            that transformers saved from ViTMAEForPreTraining.
        image_size: That the model was trained at, for released files, which do not say it; without it a square is assumed.

    Raises:
        FileNotFoundError: There is nothing at the path.
        ValueError: It is no checkpoint, holds no decoder, or its weights do not fit exactly.
    """
    checkpoint = read_checkpoint(path, image_size=image_size)
    stored = checkpoint.config["encoder"]["image_size"]
    if image_size is not None and tuple(stored) != as_pair(image_size):
        raise ValueError(f"{path} was trained at {stored[0]}x{stored[1]}: leave image_size={image_size} out")
    return autoencoder_from(checkpoint)[0]


def load_encoder(path: str | Path, *, image_size: int | tuple[int, int] | None = None) -> Backbone:
    """Load an encoder from anything that load_autoencoder takes, and from encoder-only files.

    Args:
        path: As for load_autoencoder; also a released encoder-only ``.pth`` or a timm ViT state dict.
        image_size: Side or (H, W) in pixels to use it at; positions are resampled from the stored grid.

    Raises:
        FileNotFoundError: There is nothing at the path.
        ValueError: It is no checkpoint, or its weights do not fit exactly.
    """
    return encoder_from(read_checkpoint(path), image_size=image_size)[0]


def autoencoder_from(checkpoint: Checkpoint) -> tuple[MaskedAutoencoder, LoadReport]:
    """Build the autoencoder that a checkpoint describes, with its weights."""
    if "objective" in checkpoint.config:
        raise ValueError(
            f"{checkpoint.source} was trained by {checkpoint.config['objective']['name']}, which has no decoder: mae.load_encoder "
            f"reads its encoder"
        )
    if not checkpoint.has_decoder:
        raise ValueError(
            f"{checkpoint.source} holds an encoder alone, and reconstruction needs the decoder: "
            f"give the run's checkpoints/last.ckpt, or a file saved with its decoder"
        )
    _require_size(checkpoint)
    model = build_autoencoder(checkpoint.config)
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
    encoder = create_backbone(**config, drop_path=drop_path)
    table = "encoder.vit.pos_embed"
    if isinstance(encoder, Encoder) and table in checkpoint.state:
        stored = patch_grid(trained_at, encoder.patch_size)
        resampled = resample_positions(checkpoint.state[table], stored, encoder.grid, encoder.position_prefix)
        checkpoint = replace(checkpoint, state={**checkpoint.state, table: resampled})
    _keep_pixel_statistics(encoder, checkpoint.config)
    return encoder, _load(encoder, checkpoint, keep=("encoder.",), strip="encoder.")


def build_autoencoder(config: dict[str, Any]) -> MaskedAutoencoder:
    """Build an autoencoder, without weights, from the config that one carries."""
    decoder = dict(config["decoder"])
    model = create_autoencoder(
        **config["encoder"],
        decoder=decoder.pop("name"),
        decoder_options=decoder,
        normalize_pixels=config["normalize_pixels"],
    )
    _keep_pixel_statistics(model.encoder, config)
    return model


def _require_size(checkpoint: Checkpoint, config: dict[str, Any] | None = None) -> None:
    if (config or checkpoint.config["encoder"])["image_size"] is None:
        raise ValueError(
            f"{checkpoint.source} has positions that make no square, and does not say its image size: pass image_size=(H, W)"
        )


def _keep_pixel_statistics(encoder: Backbone, config: dict[str, Any]) -> None:
    if config.get("pixel_mean") is not None:
        encoder.set_pixel_statistics(config["pixel_mean"], config["pixel_std"])


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
    loaded = sum(value.numel() for value in state.values())
    return LoadReport(checkpoint.source, checkpoint.kind, loaded, _summarise(left_out))


def _summarise(keys: list[str]) -> tuple[str, ...]:
    """Name left-out keys by their first word, with a count: ``decoder.* (20)``."""
    groups: dict[str, int] = {}
    for key in keys:
        stem = key.partition(".")[0]
        groups[stem] = groups.get(stem, 0) + 1
    return tuple(f"{stem}.* ({count})" if count > 1 else stem for stem, count in groups.items())


def read_checkpoint(path: str | Path, *, image_size: int | tuple[int, int] | None = None) -> Checkpoint:
    """Read any supported checkpoint into our words, without building a model.

    Raises:
        FileNotFoundError: There is nothing at the path.
        ValueError: It is not a checkpoint that this project can read.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no checkpoint at {path}: give a run folder, a .ckpt, a .pth or a folder of mae.save")
    if path.is_dir():
        return _read_directory(path)
    if path.suffix == ".safetensors":
        if (path.parent / "config.json").is_file() and path.name == "model.safetensors":
            return _read_directory(path.parent)
        return from_released(
            str(path), _read_safetensors(path), {}, None if image_size is None else as_pair(image_size)
        )
    content = read_pickle(path)
    if "pytorch-lightning_version" in content:
        return _from_run(path, content)
    state = content.get("model", content.get("state_dict", content))
    if not isinstance(state, dict) or not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(f"{path} is not a checkpoint that this project can read: it holds no state dict")
    arguments = content.get("args")
    return from_released(
        str(path),
        state,
        vars(arguments) if isinstance(arguments, argparse.Namespace) else {},
        None if image_size is None else as_pair(image_size),
    )


def _read_directory(folder: Path) -> Checkpoint:
    if (folder / "config.json").is_file():
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{folder / 'config.json'} is not JSON: {error}") from None
        ours = isinstance(config, dict) and config.get("format") == FORMAT and "encoder" in config
        if not ours and not (isinstance(config, dict) and config.get("model_type") == "vit_mae"):
            raise ValueError(f"{folder} holds neither a model of mae.save nor a ViTMAE of transformers")
        if (folder / "model.safetensors").is_file():
            state = _read_safetensors(folder / "model.safetensors")
        elif (folder / "pytorch_model.bin").is_file():
            state = read_pickle(folder / "pytorch_model.bin")
        else:
            raise ValueError(f"{folder} holds a config.json but no model.safetensors")
        if not ours:
            return from_transformers(folder, config, state)
        kind = "autoencoder" if "decoder" in config else "encoder"
        return Checkpoint(str(folder), f"{kind} folder of this project", config, state)
    for name in ("last.ckpt", "checkpoints/last.ckpt"):
        if (folder / name).is_file():
            return read_checkpoint(folder / name)
    raise ValueError(f"{folder} is not a checkpoint: it has neither config.json nor checkpoints/last.ckpt")


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        state: dict[str, torch.Tensor] = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file, or is cut off: {error}") from None
    return state


def read_pickle(path: Path) -> dict[str, Any]:
    """Return what ``torch.save`` wrote, tensors and plain values only.

    Raises:
        ValueError: It is not such a file, or is cut off.
    """
    try:
        # Training checkpoints of facebookresearch/mae hold their argparse.Namespace beside the weights.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise ValueError(f"{path} is not a checkpoint that torch can read safely: {reason}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a checkpoint: it holds a {type(content).__name__}")
    return content


def _from_run(path: Path, content: dict[str, Any]) -> Checkpoint:
    """Read a Lightning checkpoint of one of our runs."""
    config = content.get("hyper_parameters", {}).get("model")
    if not isinstance(config, dict) or "encoder" not in config:
        raise ValueError(f"{path} is a Lightning checkpoint of another project: it does not describe its encoder")
    state = {
        key.removeprefix("model."): value for key, value in content["state_dict"].items() if key.startswith("model.")
    }
    known = ("encoder.", "decoder.")
    return Checkpoint(
        str(path),
        "checkpoint of a run",
        config,
        {key: value for key, value in state.items() if key.startswith(known)},
        [key for key in state if not key.startswith(known)],
    )
