"""Which layer of a ViT a parameter belongs to, and which part of it learns: the last blocks alone."""

from __future__ import annotations

import math
import re

from timm.models.hiera import Hiera
from torch import nn

from mae.models.backbones.places import ViT

EMBEDDINGS = "patch_embed|pos_embed|pos_embed_win|cls_token|reg_token|norm_pre|rope|rel_pos_bias|shared_rel_pos"
"""Parts of a timm ViT that stand before its blocks, or that all of them use."""
ATTENTION_HALF = ("norm1", "proj", "attn", "ls1", "gamma_1", "drop_path1")
"""What a block of timm's does before its MLP; a layer scale is a module or a parameter, ``proj`` is on Hiera's shortcut."""


def vit_layer(name: str, depth: int) -> int:
    """Return the layer of a parameter of ``vit``: 0 embeddings, 1 to depth the blocks, depth + 1 what follows them."""
    block = re.match(r"vit\.blocks\.(\d+)\.", name)
    if block:
        return int(block.group(1)) + 1
    if re.match(rf"vit\.({EMBEDDINGS})\b", name):
        return 0
    return depth + 1


def freeze_vit(vit: ViT | Hiera, norm: nn.Module, blocks: float, title: str) -> list[nn.Module]:
    """Let the last ``blocks`` blocks and the final norm learn, and nothing before them (He et al. 2021, figure 9).

    Args:
        vit: Its ``requires_grad`` flags are set.
        norm: What ends it.
        blocks: A multiple of one half; 0.5 is the MLP of the last block with its norm, 1.5 the last block and the MLP of the one
            before.
        title: What a person calls it.

    Returns:
        The modules that are frozen, which belong in eval mode.

    Raises:
        ValueError: The number is no multiple of one half, negative, or more than there are; or a half is asked of blocks that have
            none.
    """
    depth = len(vit.blocks)
    if not 0 < blocks <= depth or not float(2 * blocks).is_integer():
        raise ValueError(
            f"protocol.blocks={blocks:g} cannot be tuned: the encoder has {depth} blocks, so choose a multiple of 0.5 from 0.5 "
            f"(the last MLP) to {depth}"
        )
    vit.requires_grad_(False)
    norm.requires_grad_(True)
    frozen = [part for part in vit.children() if part is not vit.blocks and norm not in part.modules()]
    first = depth - math.ceil(blocks)
    frozen.extend(vit.blocks[:first])
    for number in range(first, depth):
        block = vit.blocks[number]
        block.requires_grad_(True)
        if number == first and blocks % 1:
            # The attention half comes first, so only what follows it can learn without a gradient through it.
            if not all(hasattr(block, name) for name in ("norm1", "attn", "norm2", "mlp")):
                raise ValueError(
                    f"protocol.blocks={blocks:g} tunes an MLP alone, and the halves of a block of {title} are not told apart "
                    f"here: choose a whole number"
                )
            half = [part for name in ATTENTION_HALF if (part := getattr(block, name, None)) is not None]
            for part in half:
                part.requires_grad_(False)
            frozen.extend(part for part in half if isinstance(part, nn.Module))
    return frozen
