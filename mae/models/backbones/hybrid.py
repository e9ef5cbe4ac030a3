"""Hybrid ViTs: the feature map of a CNN as patches (Dosovitskiy et al. 2020, arXiv 2010.11929, section 3.1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import timm
from timm.layers import HybridEmbed
from torch import Tensor, nn

from mae.masking.plan import MaskPlan
from mae.models.backbones.places import ViT
from mae.models.backbones.timm_models import known_model


def cnn_embedding(cnn: Mapping[str, Any], in_channels: int) -> Callable[..., nn.Module]:
    """Return the layer that embeds each pixel of a CNN's feature map, for timm's ``embed_layer``.

    Args:
        cnn: ``name`` of a timm CNN, and ``level``: how many of its stages stand in front; 1 reduces a ResNet's image four times, 2
            eight times.
        in_channels: C of the images.

    Raises:
        ValueError: timm does not know the CNN, or it has no such level.
    """
    if set(cnn) != {"name", "level"}:
        raise ValueError(f"model.cnn={dict(cnn)} is not a name and a level: model.cnn={{name: resnet26d, level: 1}}")
    name, level = known_model(cnn["name"]), cnn["level"]
    try:
        backbone = timm.create_model(name, features_only=True, out_indices=(level,), in_chans=in_channels)
    except (AssertionError, RuntimeError, IndexError, TypeError) as error:
        raise ValueError(f"model.cnn={dict(cnn)} has no feature map of this level: choose level 1 to 4") from error
    return partial(HybridEmbed, backbone=backbone)


def hybrid_patch_size(name: str, vit: ViT, image_size: tuple[int, int]) -> int:
    """Return P, the pixels of the image to a side of each token.

    Raises:
        ValueError: One token is left of the whole image, or the tokens do not tile it.
    """
    grid = vit.patch_embed.grid_size
    (height, width), P = image_size, image_size[0] // grid[0]
    if grid == (1, 1):
        raise ValueError(
            f"data.image_size={height}x{width} leaves {name} one token, and attention nothing to attend to: its CNN reduces the "
            f"image {P} times or more; choose larger images, or model=hybrid_32, made for 32 pixels"
        )
    # CNNs halve an image again and again, and round up where it cannot be halved: tokens of 25 pixels have a stride of 32.
    if (height, width) != (P * grid[0], P * grid[1]) or P & (P - 1):
        stride = 1 << (P - 1).bit_length()
        raise ValueError(
            f"data.image_size={height}x{width} is not divisible into the {grid[0]}x{grid[1]} tokens that {name}'s CNN makes of it: "
            f"choose multiples of {stride}"
        )
    return int(P)


def hide_pixels(images: Tensor, plan: MaskPlan, patch_size: int) -> Tensor:
    """Return standardised images (B, C, H, W) with hidden patches at 0, the mean colour.

    A CNN's receptive field reaches past its cell, so what it must not know is taken from the pixels, before it sees them.
    """
    hidden = plan.mask.reshape(-1, 1, *plan.grid)
    hidden = hidden.repeat_interleave(patch_size, dim=2).repeat_interleave(patch_size, dim=3)
    return images.masked_fill(hidden, 0.0)
