"""timm's models by name: which there are, and which of them are ViTs that this project can run."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping
from typing import Any, get_args

import timm
import torch
from timm.layers import HybridEmbed, PatchDropout, PatchEmbed
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from mae.models.backbones.places import ViT

WHY_NOT = {
    "NaFlexVit": "it takes images that are cut into patches before",
    "Cait": "its class token takes a way of its own, which is not built here",
}
"""Why the patches of a class of timm's cannot be hidden, where it is not that they cannot be dropped."""
LOADING = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir")
"""Arguments by which timm reads weights of its own accord."""


def known_model(name: str) -> str:
    """Return the name, or raise a ValueError with the nearest that timm knows, or where it asks for pretrained weights."""
    plain, _, tag = name.partition(".")
    if not timm.is_model(plain):
        near = difflib.get_close_matches(plain, timm.list_models(), n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "timm.list_models('vit*') lists them"
        raise ValueError(f"model.name={name!r} is not a timm model: {hint}")
    if tag:
        raise ValueError(
            f"model.name={name!r} names the weights {tag!r}, which are not loaded: drop the tag, model.name={plain} starts from "
            f"random weights, and a file of weights is given by checkpoint=PATH or mae.load_encoder"
        )
    return name


def refuse_loading(options: Mapping[str, Any]) -> None:
    """Raise a ValueError where options of a timm model would have it read weights, from the network or a file.

    A checkpoint keeps the options of its model, and nothing but itself may be read where it is loaded.
    """
    for key in LOADING:
        if options.get(key):
            raise ValueError(
                f"model.options.{key}={options[key]} would have timm load weights: leave it out, and give a file of weights by "
                f"checkpoint=PATH or mae.load_encoder"
            )


@functools.lru_cache(maxsize=32)
def meta_model(name: str) -> nn.Module:
    """Return a timm model without weights, to see what it is; several parts of a run look at it, and none may change it.

    Raises:
        ValueError: timm does not know the name.
    """
    with torch.device("meta"):
        return timm.create_model(known_model(name), num_classes=0)  # type: ignore[no-any-return]


def create_vit(name: str, **arguments: Any) -> ViT:
    """Return a plain ViT of timm.

    Raises:
        ValueError: It is none, or cannot be built with these arguments.
    """
    try:
        vit = timm.create_model(known_model(name), **arguments)
    except (TypeError, AssertionError) as error:
        check_vit(name, meta_model(name))
        raise ValueError(f"timm cannot build {name} with these options: {error}") from error
    return check_vit(name, vit)


def check_vit(name: str, model: nn.Module) -> ViT:
    """Return the model, or raise a ValueError where it is no plain ViT over patches or over a CNN's feature map."""
    kind = type(model).__name__
    if not isinstance(model, ViT):
        why = WHY_NOT.get(
            kind,
            "convolutions, windows and the like need every patch in its place, so hidden patches cannot be dropped",
        )
        raise ValueError(
            f"model.name={name!r} is of the class {kind}, and no plain ViT: {why}; choose a ViT such as "
            f"vit_small_patch16_224"
        )
    own = type(model)
    if getattr(own, "_pos_embed", None) not in (
        VisionTransformer._pos_embed,
        Eva._pos_embed,
        None,
    ):  # RelPos, Beit: none
        raise ValueError(
            f"model.name={name!r} is of the class {kind}, which places its tokens in its own way: choose a plain ViT"
        )
    if own.forward_features not in {known.forward_features for known in get_args(ViT)}:
        raise ValueError(
            f"model.name={name!r} is of the class {kind}, whose own forward_features would be passed over: choose a plain ViT, or "
            f"make it a PatchBackbone"
        )
    if isinstance(getattr(model, "patch_drop", None), PatchDropout):
        raise ValueError(
            f"model.options.patch_drop_rate of {name} drops patches at random, which a masking does here: leave it out"
        )
    if not isinstance(model.patch_embed, PatchEmbed | HybridEmbed):
        raise ValueError(
            f"model.name={name!r} embeds patches with a {type(model.patch_embed).__name__}, whose receptive field looks into "
            f"hidden patches: choose a ViT whose patch embedding is one convolution, such as vit_small_patch16_224"
        )
    return model


def own_patch_size(name: str, vit: ViT) -> int:
    """Return the side of a ViT's patches in pixels.

    Raises:
        ValueError: They are no squares.
    """
    height, width = vit.patch_embed.patch_size
    if height != width:
        raise ValueError(f"{name} has patches of {height}x{width}: only square patches are supported")
    return int(height)
