"""A timm VisionTransformer as the encoder runs it: no head, no pooling, and weights that start as asked for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from timm.layers import HybridEmbed
from timm.models.beit import Beit
from timm.models.eva import Eva
from timm.models.vision_transformer_relpos import VisionTransformerRelPos
from torch import nn

from mae.models.backbones.hybrid import cnn_embedding
from mae.models.backbones.places import ViT, complete
from mae.models.backbones.timm_models import create_vit, own_patch_size, refuse_loading
from mae.models.layers.initialize import initialize_mae
from mae.models.layers.patches import patch_grid
from mae.models.layers.positions import sincos_positions

NORM_EPS = 1e-6
"""Epsilon of LayerNorms where none is asked for: timm's and the paper's."""


def build_vit(
    name: str,
    plain: ViT,
    image_size: tuple[int, int],
    in_channels: int,
    sizes: Mapping[str, Any],
    *,
    norm_eps: float | None,
    drop_path: float,
    init: str,
    attention_bias: bool,
    cnn: Mapping[str, Any] | None,
    options: Mapping[str, Any],
) -> ViT:
    """Build a timm ViT.

    Args:
        name: Of timm.
        plain: timm's own of this name, on the meta device.
        image_size: (H, W) in pixels.
        in_channels: C.
        sizes: timm's ``patch_size``, ``embed_dim``, ``depth``, ``num_heads`` and ``mlp_ratio``, where they are not the model's own.
        norm_eps: As ``own_norm_eps`` gives it; None leaves the model its own norm layers.
        drop_path: Stochastic depth at the last block.
        init: ``torch`` leaves each layer's default; the other inits follow by ``start_weights``.
        attention_bias: Whether attention has biases.
        cnn: A CNN whose feature map is embedded in place of patches.
        options: Further arguments of timm's.

    Raises:
        ValueError: The model is unknown or no ViT, the sizes do not fit, or an option is not for it.
    """
    chosen = {key: value for key, value in sizes.items() if value is not None}
    if cnn is not None or isinstance(plain.patch_embed, HybridEmbed):
        chosen.pop("patch_size", None)  # timm's is that of the feature map
    else:
        patch_grid(image_size, chosen.get("patch_size") or own_patch_size(name, plain))
    width, heads = chosen.get("embed_dim"), chosen.get("num_heads")
    if width and heads and width % heads:
        raise ValueError(f"model.width={width} is not divisible by model.heads={heads}")
    fixed: dict[str, Any] = {
        "img_size": image_size,
        "in_chans": in_channels,
        "num_classes": 0,
        # No pooling and no fc_norm: `norm` ends the trunk, and no parameter is left without a gradient.
        "global_pool": "",
        ("use_fc_norm" if isinstance(plain, Eva | Beit) else "fc_norm"): False,
        "drop_path_rate": drop_path,
        **chosen,
    }
    if isinstance(plain, Eva):
        fixed["dynamic_img_size"] = False  # DINOv3's is on, and then rotary positions are not kept
    if norm_eps is not None:
        fixed["norm_layer"] = partial(nn.LayerNorm, eps=norm_eps)
    if init == "torch":
        if isinstance(plain, Eva | Beit):
            raise ValueError(f"model.init=torch is not for {name}, which starts its own way: choose mae or timm")
        fixed["weight_init"] = "skip"
    if not attention_bias:
        fixed["qkv_bias"] = False
    if cnn is not None:
        fixed |= {"embed_layer": cnn_embedding(cnn, in_channels), "patch_size": 1}
    refuse_loading(options)
    clash = sorted(fixed.keys() & options.keys())
    if clash:
        raise ValueError(f"model.options.{clash[0]} is set by the encoder itself: leave it out of the options")
    return complete(create_vit(name, **fixed, **options))


def own_norm_eps(plain: ViT, asked: float | None) -> float | None:
    """Return the epsilon of the LayerNorms of a timm ViT; None for one that has other norms, and keeps them.

    Args:
        plain: timm's own, on the meta device.
        asked: What the user gives, which makes LayerNorms of any norms.
    """
    if asked is not None:
        return asked
    return NORM_EPS if any(isinstance(part, nn.LayerNorm) for part in plain.blocks.modules()) else None


def give_class_tokens(name: str, vit: ViT, count: int) -> None:
    """Give a ViT several class tokens in place of one, each at a position of its own where the model has one for it.

    Args:
        name: Of timm.
        vit: Is changed, in place.
        count: How many.

    Raises:
        ValueError: There is none to begin with, or none is asked for.
    """
    if count == 1:
        return
    if count < 1:
        raise ValueError(
            f"model.class_tokens={count} is no number of tokens: choose 1 or more; model.options.class_token=false has none"
        )
    if vit.cls_token is None:
        raise ValueError(f"model.class_tokens={count} are not for {name}, which has no class token: leave them out")
    if isinstance(vit, VisionTransformerRelPos | Beit):
        raise ValueError(
            f"model.class_tokens={count} are not for {name}, whose biases between places know one: leave them out"
        )
    width, more = vit.embed_dim, count - 1
    vit.cls_token = nn.Parameter(vit.cls_token.new_empty(1, count, width).normal_(std=1e-6))  # timm's own start
    for part in vit.modules():  # rotary attention leaves them where they are
        if hasattr(part, "num_prefix_tokens"):
            part.num_prefix_tokens += more
    if vit.pos_embed is not None and not vit.no_embed_class:
        vit.pos_embed = nn.Parameter(
            nn.init.trunc_normal_(vit.pos_embed.new_empty(1, vit.pos_embed.shape[1] + more, width), std=0.02)
        )


def start_weights(vit: ViT, init: str, position_std: float | None, token_std: float | None) -> None:
    """Initialise weights by MAE's rules, where these are asked for, and positions and class token by their deviations."""
    if init == "mae":
        initialize_mae(vit)
    for key, table, std in (
        ("position_std", vit.pos_embed, position_std),
        ("token_std", vit.cls_token, token_std),
    ):
        if table is not None and std is not None:
            nn.init.normal_(table, std=std)
        elif std is not None:
            raise ValueError(f"model.{key}={std} means nothing to this model, which has no such table: leave it out")


def fix_sincos(name: str, vit: ViT, grid: tuple[int, int], prefix: int) -> None:
    """Fill the position table with sines and cosines that do not learn; the rows of class and register tokens are zero.

    Raises:
        ValueError: It has none.
    """
    if vit.pos_embed is None:
        raise ValueError(f"{name} has no position table: model.positions=sincos has nothing to fill")
    with torch.no_grad():
        vit.pos_embed.copy_(sincos_positions(grid, vit.embed_dim, prefix))
    vit.pos_embed.requires_grad_(False)
