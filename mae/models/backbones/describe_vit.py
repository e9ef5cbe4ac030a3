"""A ViT object of a user's: without its classifier, and the arguments that build it again, which are tried first."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import DropPath, HybridEmbed, LayerScale
from timm.models.beit import Beit
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mae.models.backbones.places import ViT, complete
from mae.models.backbones.timm_models import meta_model, own_patch_size

PLAIN = {
    VisionTransformer: "vit_base_patch16_224",
    Eva: "eva02_base_patch14_224",
    Beit: "beit_base_patch16_224",
}
"""A name of timm's for an object that was built without one."""


def vit_name(vit: ViT) -> str:
    """Return timm's name of a ViT; of one that was built without a name, that of a plain one of its class."""
    own = (getattr(vit, "pretrained_cfg", None) or {}).get("architecture")
    plain = next((name for kind, name in PLAIN.items() if isinstance(vit, kind)), "vit_relpos_base_patch16_224")
    return str(own or plain)


def without_classifier(vit: ViT) -> ViT:
    """Take the classifier off a ViT, in place; a norm that stands behind its pooling becomes its last one.

    Raises:
        ValueError: It takes images of any size.
    """
    if getattr(vit, "dynamic_img_size", False) or vit.patch_embed.img_size is None:
        raise ValueError(
            f"this {type(vit).__name__} takes images of any size, and masks are of one grid: build it with img_size=(H, W) and "
            f"dynamic_img_size=False"
        )
    if isinstance(vit.norm, nn.Identity) and not isinstance(vit.fc_norm, nn.Identity):
        vit.norm = vit.fc_norm
    vit.fc_norm = nn.Identity()
    vit.reset_classifier(0, "")
    return complete(vit)


def encoder_arguments(vit: ViT) -> dict[str, Any]:
    """Return arguments of ``Encoder`` that should build a ViT like this one.

    Args:
        vit: Of any size, with or without a classifier.
    """
    name, block = vit_name(vit), vit.blocks[0]
    plain: Any = meta_model(name)
    traits, usual = _traits(vit), _traits(plain)
    hidden = _hidden(vit)  # timm rounds down what it makes of a ratio
    return {
        "name": name,
        "image_size": tuple(vit.patch_embed.img_size),
        "in_channels": vit.in_chans,
        "patch_size": None if isinstance(vit.patch_embed, HybridEmbed) else own_patch_size(name, vit),
        "positions": "learned" if vit.pos_embed is None or vit.pos_embed.requires_grad else "sincos",
        "width": vit.embed_dim,
        "depth": len(vit.blocks),
        "heads": block.attn.num_heads,
        "mlp_ratio": None
        if hidden / vit.embed_dim == _hidden(plain) / plain.embed_dim
        else (hidden + 0.5) / vit.embed_dim,
        "norm_eps": next((part.eps for part in vit.blocks.modules() if isinstance(part, nn.LayerNorm)), None),
        "drop_path": max((part.drop_prob for part in vit.modules() if isinstance(part, DropPath)), default=0.0),
        "class_tokens": max(1, 0 if vit.cls_token is None else vit.cls_token.shape[1]),
        "options": {key: value for key, value in traits.items() if value != usual.get(key)},
    }


def same_tokens(vit: ViT, twin: ViT, image_size: tuple[int, int], channels: int) -> bool:
    """Return whether two ViTs are made of the same layers, and give the same tokens of an image, bit for bit."""
    if [repr(one) for one in vit.blocks] != [repr(one) for one in twin.blocks]:
        return False  # dropout and the like, which one image in eval mode does not show
    one = next(vit.parameters())
    images = torch.rand(1, channels, *image_size, generator=torch.Generator().manual_seed(0)).to(one.device, one.dtype)
    modes = [(part, part.training) for part in vit.modules()]
    try:
        with torch.no_grad():
            found: list[Tensor] = [
                part.eval().forward_features(images) for part in (vit, twin.to(one.device, one.dtype))
            ]
    finally:
        for part, mode in modes:
            part.training = mode
    return torch.equal(*found)


def _hidden(vit: ViT) -> int:
    """Return the hidden width of an MLP."""
    mlp = vit.blocks[0].mlp
    return int(mlp.fc2.in_features if hasattr(mlp, "fc2") else mlp.w3.in_features)


def _traits(vit: ViT) -> dict[str, Any]:
    """Return what a ViT has that timm takes an argument for, under the argument's name."""
    block = vit.blocks[0]
    attention, kind = block.attn, type(vit)
    traits: dict[str, Any] = {}
    scale = getattr(block, "ls1", None)
    gamma = scale.gamma if isinstance(scale, LayerScale) else getattr(block, "gamma_1", None)
    traits["init_values"] = None if gamma is None else 1e-5  # what it starts at is not kept, and the weights follow
    if isinstance(vit, VisionTransformer):
        traits |= {
            "class_token": vit.cls_token is not None,
            "reg_tokens": 0 if vit.reg_token is None else vit.reg_token.shape[1],
            "no_embed_class": vit.no_embed_class,
            "pos_embed": "none" if vit.pos_embed is None else "learn",
            "pre_norm": not isinstance(vit.norm_pre, nn.Identity),
            "qkv_bias": attention.qkv.bias is not None,
            "qk_norm": not isinstance(attention.q_norm, nn.Identity),
        }
    if kind is not Beit and isinstance(getattr(attention, "proj_drop", None), nn.Dropout):
        traits["proj_drop_rate"] = attention.proj_drop.p
    if isinstance(getattr(attention, "attn_drop", None), nn.Dropout):
        traits["attn_drop_rate"] = attention.attn_drop.p
    if isinstance(getattr(vit, "pos_drop", None), nn.Dropout):
        traits["pos_drop_rate"] = vit.pos_drop.p
    return traits
