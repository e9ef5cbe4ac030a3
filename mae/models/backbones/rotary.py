"""Rotary positions of timm's Eva class (EVA02, DINOv3, Perception Encoder, RoPE-ViT): gathered for the patches that are seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeAlias

from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mae.masking.plan import MaskPlan

ViT: TypeAlias = VisionTransformer | Eva
"""The classes of timm whose patches can be hidden."""


def placed(vit: ViT, embeddings: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return embeddings (B, L, D) with class and register tokens before them and positions added, and the rotary positions."""
    tokens = vit._pos_embed(embeddings)
    return tokens if isinstance(tokens, tuple) else (tokens, None)


def rotary_positions(vit: ViT, plan: MaskPlan) -> Tensor | None:
    """Return the rotary positions of visible patches, as blocks take them: (B, 1, V, d), or where each block has its own
    (depth, B, heads, V, d). None where there are none.
    """  # noqa: D205
    rope = getattr(vit, "rope", None)
    if rope is None:
        return None
    table = rope.get_embed() if hasattr(rope, "feat_shape") else rope.get_embed(shape=plan.grid)
    seen: Tensor = table[..., plan.keep, :]  # (B, V, d), or of blocks and heads (depth, heads, B, V, d)
    return seen.unsqueeze(1) if seen.ndim == 3 else seen.transpose(1, 2)


def layers(vit: ViT, rotary: Tensor | None) -> Iterator[Callable[[Tensor], Tensor]]:
    """Yield the blocks, each with its rotary positions; they are computed again on the way back where the model is set to that."""
    own = getattr(vit, "rope_mixed", False)
    for number, block in enumerate(vit.blocks):
        run = block if rotary is None else partial(block, rope=rotary[number] if own else rotary)
        yield partial(checkpoint, run, use_reentrant=False) if vit.grad_checkpointing else run
