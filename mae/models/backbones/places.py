"""Where tokens stand, as timm's ViTs tell it to their blocks: rotary angles and biases of attention, for the patches that are seen.

Rotary positions are those of Eva (EVA02, DINOv3, Perception Encoder, RoPE-ViT); biases between places those of RelPos and BEiT.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from timm.layers import resize_rel_pos_bias_table
from timm.models.beit import Beit
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_relpos import VisionTransformerRelPos
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mae.masking.plan import MaskPlan

ViT: TypeAlias = VisionTransformer | Eva | VisionTransformerRelPos | Beit
"""The classes of timm whose patches can be hidden."""


def complete(vit: ViT) -> ViT:
    """Give a ViT of timm's, in place, what others have and it does without: nothing, under the same names."""
    for name, nothing in (("pos_embed", None), ("reg_token", None), ("no_embed_class", False)):
        if not hasattr(vit, name):
            setattr(vit, name, nothing)
    for name in ("pos_drop", "norm_pre"):
        if not hasattr(vit, name):
            setattr(vit, name, nn.Identity())
    return vit


def embed_patches(vit: ViT, patches: Tensor) -> Tensor:
    """Embed some patches, without positions: (B, V, P*P*C) to (B, V, D)."""
    embed, (B, V, _) = vit.patch_embed, patches.shape
    # The patch convolution touches each patch once, so on single patches it is a matrix product. The patches are turned to
    # the weight's (C, P, P) and not the other way round: DDP wants a gradient that lies in memory as its weight does.
    patches = patches.reshape(B, V, *embed.patch_size, -1).permute(0, 1, 4, 2, 3).flatten(2)
    return embed.norm(F.linear(patches, embed.proj.weight.flatten(1), embed.proj.bias))  # type: ignore[no-any-return]


def placed(vit: ViT, embeddings: Tensor) -> Tensor:
    """Return embeddings of all patches (B, L, D) with class and register tokens before them and positions added."""
    if hasattr(vit, "_pos_embed"):
        tokens = vit._pos_embed(embeddings)
        return tokens[0] if isinstance(tokens, tuple) else tokens  # type: ignore[no-any-return]
    if vit.cls_token is not None:
        embeddings = torch.cat([vit.cls_token.expand(len(embeddings), -1, -1), embeddings], dim=1)
    return vit.pos_drop(embeddings if vit.pos_embed is None else embeddings + vit.pos_embed)  # type: ignore[no-any-return]


def places_alone(vit: ViT) -> bool:
    """Return whether blocks alone are told where patches stand, since there is no table that is added to them."""
    biased = any(part in name for name, _ in vit.named_parameters() for part in ("rel_pos", "relative_position"))
    return vit.pos_embed is None and (biased or getattr(vit, "rope", None) is not None)


def layers(vit: ViT, grid: tuple[int, int], plan: MaskPlan | None = None) -> Iterator[Callable[[Tensor], Tensor]]:
    """Yield the blocks, each with what it is told of the places of its tokens: all patches, or the visible ones of a plan.

    They are computed again on the way back where the model is set to that.
    """
    for block, told in _told(vit, grid, plan):
        run = partial(block, **told) if told else block
        yield partial(checkpoint, run, use_reentrant=False) if vit.grad_checkpointing else run


def _told(vit: ViT, grid: tuple[int, int], plan: MaskPlan | None) -> Iterator[tuple[nn.Module, dict[str, Tensor]]]:
    if isinstance(vit, VisionTransformerRelPos | Beit):
        key = "shared_rel_pos_bias" if isinstance(vit, Beit) else "shared_rel_pos"
        shared = _shared_bias(vit)
        for block in vit.blocks:
            if plan is None:
                yield block, {} if shared is None else {key: shared}
            else:
                bias = _own_bias(block.attn)
                bias = shared if bias is None else bias if shared is None else bias + shared
                told = {} if bias is None else {key: seen_bias(bias, plan, vit.num_prefix_tokens)}
                yield _without_own_bias(block), told
        return
    rotary = rotary_positions(vit, grid, plan)
    own = getattr(vit, "rope_mixed", False)
    for number, block in enumerate(vit.blocks):
        yield block, {} if rotary is None else {"rope": rotary[number] if own else rotary}


def rotary_positions(vit: ViT, grid: tuple[int, int], plan: MaskPlan | None = None) -> Tensor | None:
    """Return rotary positions as blocks take them: (L, d) of all patches, or where each block has its own (depth, heads, L, d).

    Of the visible patches alone they are (B, 1, V, d), or (depth, B, heads, V, d). None where there are none.
    """
    rope = getattr(vit, "rope", None)
    if rope is None:
        return None
    table: Tensor = rope.get_embed() if hasattr(rope, "feat_shape") else rope.get_embed(shape=grid)
    if plan is None:
        return table
    seen = table[..., plan.keep, :]  # (B, V, d), or of blocks and heads (depth, heads, B, V, d)
    return seen.unsqueeze(1) if seen.ndim == 3 else seen.transpose(1, 2)


def seen_bias(bias: Tensor, plan: MaskPlan, prefix: int) -> Tensor:
    """Return the biases (B, heads, prefix + V, prefix + V) between visible patches, of those between all (..., heads, N, N)."""
    first = torch.arange(prefix, device=plan.keep.device).expand(len(plan.keep), -1)
    seen = torch.cat([first, plan.keep + prefix], dim=1)
    return bias.reshape(-1, *bias.shape[-2:])[:, seen[:, :, None], seen[:, None, :]].transpose(0, 1)


def resample_biases(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], old: tuple[int, int], new: tuple[int, int]
) -> dict[str, Tensor]:
    """Return those weights that hold a bias for each distance between places, from one grid to another, as timm resamples them.

    Args:
        state: Of a ViT that was trained on the old grid.
        own: Of the one that takes them, on the new grid.
        old: (Gh, Gw).
        new: (Gh, Gw).
    """
    return {
        key: resize_rel_pos_bias_table(value, new_window_size=new, new_bias_shape=own[key].shape, old_window_size=old)
        for key, value in state.items()
        if key.endswith("relative_position_bias_table") and key in own
    }


def _shared_bias(vit: VisionTransformerRelPos | Beit) -> Tensor | None:
    """Return the biases that all blocks share, (1, heads, N, N) or (heads, N, N), as timm hands them to its blocks."""
    if isinstance(vit, Beit):
        return None if vit.rel_pos_bias is None else vit.rel_pos_bias()
    return None if vit.shared_rel_pos is None else vit.shared_rel_pos.get_bias()


def _own_bias(attention: nn.Module) -> Tensor | None:
    """Return a block's own biases (1, heads, N, N)."""
    own: Any = attention
    if hasattr(own, "rel_pos"):
        return None if own.rel_pos is None else own.rel_pos.get_bias()
    return None if own.relative_position_bias_table is None else own._get_rel_pos_bias()


def _without_own_bias(block: nn.Module) -> nn.Module:
    """Return the same block, of the same weights, whose attention takes the biases that it is handed alone."""
    twin, attention = copy.copy(block), copy.copy(block.attn)
    assert isinstance(attention, nn.Module)
    attention._modules = {name: None if name == "rel_pos" else part for name, part in attention._modules.items()}
    attention._parameters = {
        name: None if name == "relative_position_bias_table" else part for name, part in attention._parameters.items()
    }
    twin._modules = {**twin._modules, "attn": attention}
    return twin
