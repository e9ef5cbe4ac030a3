"""Checkpoints of others, in our words: facebookresearch/mae files and transformers ViTMAE folders."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mae.checkpoints.format import Checkpoint

# Heads cannot be read off the weights: these are the paper's. Other widths have 64 channels a head (ViT) and 32 (decoder).
RELEASED_HEADS = {768: 12, 1024: 16, 1280: 16}

RELEASED_DECODER = {
    "mask_token": "decoder.mask_token",
    "decoder_pos_embed": "decoder.positions",
    "decoder_embed": "decoder.embed",
    "decoder_norm": "decoder.norm",
    "decoder_pred": "decoder.predict",
}
BLOCK_PARTS = r"(norm[12]|attn\.(?:qkv|proj)|mlp\.fc[12])\.(weight|bias)"


def from_released(
    source: str, state: Mapping[str, Tensor], arguments: Mapping[str, Any], image_size: tuple[int, int] | None
) -> Checkpoint:
    """Translate a state dict in the names of facebookresearch/mae (which are timm's for the encoder).

    Args:
        source: The path, for messages.
        state: The file's ``model``, or a plain timm ViT state dict.
        arguments: The training arguments where the file holds them.
        image_size: (H, W), which released files do not say; None assumes a square, and leaves the size open where the
            positions are none.

    Raises:
        ValueError: A key is not one of this family.
    """
    translated: dict[str, Tensor] = {}
    ignored = []
    for key, value in state.items():
        stem, _, leaf = key.rpartition(".")
        if key in RELEASED_DECODER:
            translated[RELEASED_DECODER[key]] = value
        elif stem in RELEASED_DECODER and leaf in ("weight", "bias"):
            translated[f"{RELEASED_DECODER[stem]}.{leaf}"] = value
        elif re.fullmatch(rf"decoder_blocks\.\d+\.{BLOCK_PARTS}", key):
            translated["decoder.blocks" + key.removeprefix("decoder_blocks")] = value
        elif re.fullmatch(
            rf"cls_token|reg_token|pos_embed|(patch_embed\.proj|norm)\.(weight|bias)|blocks\.\d+\.{BLOCK_PARTS}", key
        ):
            translated[f"encoder.vit.{key}"] = value
        elif stem == "head":
            ignored.append(key)
        else:
            raise ValueError(
                f"{source}: the weight {key!r} is not one of a ViT or a masked autoencoder with timm's names"
            )
    missing = [
        key
        for key in ("pos_embed", "patch_embed.proj.weight", "norm.weight", "blocks.0.norm1.weight")
        if key not in state
    ]
    if missing:
        raise ValueError(f"{source} is not a checkpoint of a ViT that this project can read: {missing[0]!r} is missing")

    width, channels, patch, _ = state["patch_embed.proj.weight"].shape
    rows = state["pos_embed"].shape[1]
    prefix = sum(state[key].shape[1] for key in ("cls_token", "reg_token") if key in state)
    # timm has ViTs whose table leaves class and register tokens out: known by a square without them. A first row of zeros is
    # that of a class token with fixed positions, so there the table has one.
    fixed = prefix > 0 and not state["pos_embed"][:, :1].any()
    square = _is_square(rows) and not _is_square(rows - prefix)
    no_embed_class = image_size is None and prefix > 0 and square and not fixed
    if no_embed_class:
        prefix = 0
    if image_size is None and _is_square(rows - prefix):
        image_size = (math.isqrt(rows - prefix) * patch,) * 2
    config: dict[str, Any] = {
        "encoder": {
            "name": "vit_base_patch16_224",
            "image_size": None if image_size is None else list(image_size),
            "in_channels": channels,
            "patch_size": patch,
            "positions": "sincos" if fixed else "learned",
            "width": width,
            "depth": _count_blocks(state, "blocks"),
            "heads": RELEASED_HEADS.get(width, max(1, width // 64)),
            "mlp_ratio": state["blocks.0.mlp.fc1.weight"].shape[0] / width,
            "norm_eps": 1e-6,
            "class_tokens": state["cls_token"].shape[1] if "cls_token" in state else 1,
            "options": {
                "class_token": "cls_token" in state,
                "reg_tokens": state["reg_token"].shape[1] if "reg_token" in state else 0,
                "qkv_bias": "blocks.0.attn.qkv.bias" in state,
                "no_embed_class": no_embed_class,
            },
        }
    }
    if "decoder_pred.weight" in state:
        decoder_width = state["decoder_embed.weight"].shape[0]
        config["decoder"] = {
            "name": "self_attention",
            "width": decoder_width,
            "depth": _count_blocks(state, "decoder_blocks"),
            "heads": max(1, decoder_width // 32),
            "mlp_ratio": state["decoder_blocks.0.mlp.fc1.weight"].shape[0] / decoder_width,
        }
        config["normalize_pixels"] = bool(arguments.get("norm_pix_loss", True))
    # The released models saw ImageNet, standardised by its statistics.
    if channels == 3:
        config |= {"pixel_mean": (0.485, 0.456, 0.406), "pixel_std": (0.229, 0.224, 0.225)}
    return Checkpoint(source, "checkpoint with the names of facebookresearch/mae", config, translated, ignored)


def _count_blocks(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({key.split(".")[1] for key in state if key.startswith(f"{prefix}.")})


def _is_square(number: int) -> bool:
    return number > 0 and math.isqrt(number) ** 2 == number


TRANSFORMERS_NAMES = (
    # Outside the blocks.
    (r"vit\.embeddings\.cls_token", "encoder.vit.cls_token"),
    (r"vit\.embeddings\.position_embeddings", "encoder.vit.pos_embed"),
    (r"vit\.embeddings\.patch_embeddings\.projection\.(weight|bias)", r"encoder.vit.patch_embed.proj.\1"),
    (r"vit\.layernorm\.(weight|bias)", r"encoder.vit.norm.\1"),
    (r"decoder\.mask_token", "decoder.mask_token"),
    (r"decoder\.decoder_pos_embed", "decoder.positions"),
    (r"decoder\.decoder_embed\.(weight|bias)", r"decoder.embed.\1"),
    (r"decoder\.decoder_norm\.(weight|bias)", r"decoder.norm.\1"),
    (r"decoder\.decoder_pred\.(weight|bias)", r"decoder.predict.\1"),
    # The blocks, as files name them and as transformers 5 names them in memory.
    (r"vit\.(?:encoder\.layer|layers)\.(\d+)\.(.*)", r"encoder.vit.blocks.\1.\2"),
    (r"decoder\.(?:decoder_encoder\.layer|decoder_layers)\.(\d+)\.(.*)", r"decoder.blocks.\1.\2"),
    (r"(.*)\.layernorm_before\.(weight|bias)", r"\1.norm1.\2"),
    (r"(.*)\.layernorm_after\.(weight|bias)", r"\1.norm2.\2"),
    (r"(.*)\.attention\.attention\.(query|key|value)\.(weight|bias)", r"\1.attn.\2.\3"),
    (r"(.*)\.attention\.q_proj\.(weight|bias)", r"\1.attn.query.\2"),
    (r"(.*)\.attention\.k_proj\.(weight|bias)", r"\1.attn.key.\2"),
    (r"(.*)\.attention\.v_proj\.(weight|bias)", r"\1.attn.value.\2"),
    (r"(.*)\.attention\.(?:output\.dense|o_proj)\.(weight|bias)", r"\1.attn.proj.\2"),
    (r"(.*)\.(?:intermediate\.dense|mlp\.fc1)\.(weight|bias)", r"\1.mlp.fc1.\2"),
    (r"(.*)\.(?:output\.dense|mlp\.fc2)\.(weight|bias)", r"\1.mlp.fc2.\2"),
)


def from_transformers(folder: Path, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> Checkpoint:
    """Translate the config and weights that transformers saved from ViTMAEForPreTraining or ViTMAEModel.

    Raises:
        ValueError: A weight has no counterpart here, or the activation is not the paper's.
    """
    if config.get("hidden_act", "gelu") != "gelu":
        raise ValueError(f"{folder}: hidden_act={config['hidden_act']!r} is not supported, only gelu")
    translated: dict[str, Tensor] = {}
    for key, value in state.items():
        # A bare ViTMAEModel saves without the prefix.
        name = key if key.startswith(("vit.", "decoder.")) else f"vit.{key}"
        for pattern, replacement in TRANSFORMERS_NAMES:
            name = re.sub(f"^{pattern}$", replacement, name)
        if not re.match(r"encoder\.vit\.|decoder\.(mask_token|positions|embed|norm|predict|blocks)", name):
            raise ValueError(f"{folder}: the weight {key!r} is not one of a ViTMAE")
        translated[name] = value
    for key in [key for key in translated if ".attn.query." in key]:
        parts = [translated.pop(key.replace("query", part)) for part in ("query", "key", "value")]
        translated[key.replace("query", "qkv")] = torch.cat(parts)

    size = config["image_size"]
    has_decoder = any(key.startswith("decoder.") for key in translated)
    ours: dict[str, Any] = {
        "encoder": {
            "name": "vit_base_patch16_224",
            "image_size": [size, size] if isinstance(size, int) else list(size),
            "in_channels": config["num_channels"],
            "patch_size": config["patch_size"] if isinstance(config["patch_size"], int) else config["patch_size"][0],
            "positions": "sincos",
            "width": config["hidden_size"],
            "depth": config["num_hidden_layers"],
            "heads": config["num_attention_heads"],
            "mlp_ratio": config["intermediate_size"] / config["hidden_size"],
            "norm_eps": config["layer_norm_eps"],
            "options": {"qkv_bias": config["qkv_bias"]},
        }
    }
    if has_decoder:
        ours["decoder"] = {
            "name": "self_attention",
            "width": config["decoder_hidden_size"],
            "depth": config["decoder_num_hidden_layers"],
            "heads": config["decoder_num_attention_heads"],
            "mlp_ratio": config["decoder_intermediate_size"] / config["decoder_hidden_size"],
            "qkv_bias": config["qkv_bias"],
            "norm_eps": config["layer_norm_eps"],
        }
        ours["normalize_pixels"] = config["norm_pix_loss"]
    preprocessor = folder / "preprocessor_config.json"
    if preprocessor.is_file():
        values = json.loads(preprocessor.read_text(encoding="utf-8"))
        ours |= {"pixel_mean": tuple(values["image_mean"]), "pixel_std": tuple(values["image_std"])}
    return Checkpoint(str(folder), "transformers ViTMAE folder", ours, translated)
