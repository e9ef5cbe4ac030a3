"""Reading: from a path to weights and config in our words, whatever wrote them; no model is built."""

from __future__ import annotations

import argparse
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from mae.checkpoints.format import FORMAT, Checkpoint
from mae.checkpoints.translate import from_released, from_transformers
from mae.models.layers.patches import as_pair

# What the unpickler was seen to raise on text, on random bytes and on files that are cut off.
UNREADABLE = (
    *(pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, ValueError),
    *(LookupError, AttributeError, TypeError, AssertionError),
)

START = "start_share"
"""How much of the weights of a fine-tuning is those that it began with."""
HEADER = ("epoch", "global_step", "hyper_parameters", START)
"""What a checkpoint of a run says of itself beside its tensors."""


def read_checkpoint(
    path: str | Path, *, image_size: int | tuple[int, int] | None = None, whole: bool = False
) -> Checkpoint:
    """Read any supported checkpoint into our words, without building a model.

    Args:
        path: Of a file or a folder. Of a run folder ``encoder/`` is read, which the run's results are of; of a run that is not
            finished the best checkpoint of a second stage, and the last one of pretraining.
        image_size: (H, W) in pixels that released files were trained at, which they do not say.
        whole: Read the decoder too, of a run folder: that of the end of training, as ``encoder/`` of pretraining is.

    Raises:
        FileNotFoundError: There is nothing at the path.
        ValueError: It is not a checkpoint that this project can read.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no checkpoint at {path}: give a run folder, a .ckpt, a .pth or a folder of mae.save")
    if path.is_dir():
        return _read_directory(path, whole)
    if path.suffix == ".safetensors":
        if (path.parent / "config.json").is_file() and path.name == "model.safetensors":
            return _read_directory(path.parent, whole)
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


def _read_directory(folder: Path, whole: bool) -> Checkpoint:
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
    return read_checkpoint(_file_of_run(folder, whole))


def _file_of_run(folder: Path, whole: bool) -> Path:
    """Return what is to be read of a run folder, or of its folder of checkpoints."""
    if not whole and (folder / "encoder" / "config.json").is_file():
        return folder / "encoder"
    for checkpoints in (folder, folder / "checkpoints"):
        last, best = checkpoints / "last.ckpt", checkpoints / "best.ckpt"
        # Pretraining ends with its last weights, a second stage with those that were best on validation.
        if best.is_file() and not (last.is_file() and (whole or _is_pretraining(last))):
            return best
        if last.is_file():
            return last
    raise ValueError(f"{folder} is not a checkpoint: it has neither config.json nor checkpoints/last.ckpt")


def _is_pretraining(path: Path) -> bool:
    """Whether a checkpoint of a run holds what an objective trains, and no task."""
    model = read_header(path).get("hyper_parameters", {}).get("model", {})
    return "decoder" in model or "objective" in model


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        state: dict[str, torch.Tensor] = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file, or is cut off: {error}") from None
    return state


def read_header(path: Path) -> dict[str, Any]:
    """Return what a checkpoint of a run says of itself: ``epoch``, ``global_step``, ``hyper_parameters`` and ``start_share``.

    Its tensors stay on disk, so this is cheap, whatever the size of the file.

    Raises:
        ValueError: It is no such file, or is cut off.
    """
    content = read_pickle(path)
    return {key: content[key] for key in HEADER if key in content}


def read_pickle(path: Path) -> dict[str, Any]:
    """Return what ``torch.save`` wrote, tensors and plain values only; a tensor is read from the file where it is first used.

    Raises:
        ValueError: It is not such a file, or is cut off.
    """
    try:
        # Training checkpoints of facebookresearch/mae hold their argparse.Namespace beside the weights.
        with torch.serialization.safe_globals([argparse.Namespace]):
            # Files of before torch 1.6, some of the released ones among them, are no zip archives and cannot be mapped.
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
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
