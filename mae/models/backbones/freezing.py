"""Which part of an encoder learns: all of it, the last blocks, or nothing."""

from __future__ import annotations

import math

from torch import nn

from mae.models.backbones.backbone import Backbone
from mae.models.backbones.encoder import Encoder

ATTENTION_HALF = ("norm1", "attn", "ls1", "drop_path1")


def freeze_all_but(encoder: Backbone, blocks: float | None) -> list[nn.Module]:
    """Let the last ``blocks`` blocks and the final norm learn, and nothing before them (He et al. 2021, figure 9).

    Args:
        encoder: Its ``requires_grad`` flags are set.
        blocks: A multiple of one half; 0.5 is the MLP of the last block with its norm, 1.5 the last block and the MLP of the one
            before. 0 freezes everything, the final norm too; None frees everything, fixed positions too, as the paper's
            fine-tuning does.

    Returns:
        The modules that are frozen, which belong in eval mode.

    Raises:
        ValueError: The number is no multiple of one half, negative, or more than the encoder has; or a half is asked of blocks that
            have none.
    """
    encoder.requires_grad_(blocks is None)
    if blocks is None:
        return []
    if blocks == 0:
        return [encoder]
    if not isinstance(encoder, Encoder):
        raise ValueError(
            f"protocol.blocks={blocks:g} tunes the last blocks of a ViT, and {encoder.config['name']} has none: choose "
            f"protocol=finetune or protocol=linear_probe"
        )
    vit, depth = encoder.vit, encoder.depth
    if not 0 < blocks <= depth or not float(2 * blocks).is_integer():
        raise ValueError(
            f"protocol.blocks={blocks:g} cannot be tuned: the encoder has {depth} blocks, so choose a multiple of 0.5 from 0.5 "
            f"(the last MLP) to {depth}"
        )
    vit.norm.requires_grad_(True)
    frozen = [part for name, part in vit.named_children() if name not in ("blocks", "norm")]
    first = depth - math.ceil(blocks)
    frozen.extend(vit.blocks[:first])
    for number in range(first, depth):
        block = vit.blocks[number]
        block.requires_grad_(True)
        if number == first and blocks % 1:
            # The attention half comes first, so only what follows it can learn without a gradient through it.
            if not all(hasattr(block, name) for name in (*ATTENTION_HALF, "mlp")):
                raise ValueError(
                    f"protocol.blocks={blocks:g} tunes an MLP alone, and blocks of {encoder.config['name']} are not an attention "
                    f"and then an MLP: choose a whole number"
                )
            halves = [getattr(block, name) for name in ATTENTION_HALF]
            for part in halves:
                part.requires_grad_(False)
            frozen.extend(halves)
    return frozen
