"""Decoders: encoded visible patches to predicted hidden patches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mae.components.registry import Registry
from mae.masking.plan import MaskPlan, gather_patches
from mae.models.layers.initialize import initialize_mae
from mae.models.layers.positions import sincos_positions


class Decoder(nn.Module, ABC):
    """Encoded visible patches to what is predicted of the hidden ones.

    A decoder is built as ``Class(encoder_width, patch_values, grid, num_prefix_tokens, **options)``, and its options are the keys
    of the config group ``decoder``. Its weights are stored under ``decoder.``; a buffer ``positions`` may be missing from a file.

    Attributes:
        predict_fraction: Share of the hidden patches that is predicted at a step; in eval mode all are.
        levels: Last blocks of the encoder whose tokens it takes, stacked (levels, B, prefix + V, D); 0 for those of the last alone.
        config: What it was made from, where a registry made it.
    """

    predict_fraction: float = 1.0
    levels: int = 0
    _checkpoints = False
    config: dict[str, Any]

    def predicted(self, plan: MaskPlan) -> Tensor:
        """Return the hidden patches that are predicted, (B, Q): all, or in training the first ones, since their order is random."""
        M = plan.masked.shape[1]
        return plan.masked[:, : max(1, round(M * self.predict_fraction))] if self.training else plan.masked

    @abstractmethod
    def forward(self, latent: Tensor, plan: MaskPlan) -> Tensor:
        """Predict the hidden patches, or those that ``predicted`` returns.

        Args:
            latent: (B, prefix + V, D of the encoder): class and register tokens, then the visible patches in the order of
                ``plan.keep``.
            plan: Which patch each of them is, and which are to be predicted.

        Returns:
            (B, Q, patch_values), of the first Q of ``plan.masked``, in their order; Q = M where all are predicted.
        """

    def set_grad_checkpointing(self) -> None:
        """Compute what goes through ``run`` again on the way back, which takes less memory."""
        self._checkpoints = True

    def run(self, block: nn.Module, *inputs: Tensor) -> Tensor:
        """Return what a block gives, which is computed again on the way back where that was asked for."""
        found: Tensor = checkpoint(block, *inputs, use_reentrant=False) if self._checkpoints else block(*inputs)
        return found


class LastBlock(Block):  # type: ignore[misc]
    """A block of which some tokens alone are read: it looks at all, and works on these."""

    def forward(self, tokens: Tensor, places: Tensor) -> Tensor:
        """Return what the block gives for tokens (B, N, D) at some places (B, Q): (B, Q, D).

        Keys and values are computed of all tokens; queries, the output of attention and the MLP at these places alone.
        """
        attention, D = self.attn, tokens.shape[-1]
        normed = self.norm1(tokens)
        weight, bias = attention.qkv.weight, attention.qkv.bias
        q = F.linear(gather_patches(normed, places), weight[:D], None if bias is None else bias[:D])
        k, v = F.linear(normed, weight[D:], None if bias is None else bias[D:]).chunk(2, dim=-1)
        q, k, v = (split_heads(part, attention.num_heads) for part in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        tokens = gather_patches(tokens, places) + attention.proj(mixed)
        return tokens + self.mlp(self.norm2(tokens))  # type: ignore[no-any-return]


class SelfAttentionDecoder(Decoder):
    """MAE's decoder: mask tokens join the encoded patches in the places of the image, then a light ViT runs over all.

    Args:
        encoder_width: D of the encoder.
        patch_values: P*P*C, what is predicted for each hidden patch.
        grid: (Gh, Gw).
        num_prefix_tokens: Class and register tokens in front of the patches; they take part, at position zero.
        width: D of the decoder; the paper's is 512.
        depth: Blocks; the paper's 8.
        heads: The paper's 16.
        mlp_ratio: Hidden width of the MLP over the width.
        qkv_bias: Whether queries, keys and values have biases.
        norm_eps: Epsilon of every LayerNorm.
        predict_fraction: Share of the hidden patches that is predicted at a step; the paper predicts all.

    Raises:
        ValueError: The heads do not divide the width, or the share is none.
    """

    def __init__(
        self,
        encoder_width: int,
        patch_values: int,
        grid: tuple[int, int],
        num_prefix_tokens: int,
        *,
        width: int = 512,
        depth: int = 8,
        heads: int = 16,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        norm_eps: float = 1e-6,
        predict_fraction: float = 1.0,
    ) -> None:
        super().__init__()
        check_decoder(width, heads, depth, predict_fraction)
        self.predict_fraction = predict_fraction
        norm = partial(nn.LayerNorm, eps=norm_eps)
        self.embed = nn.Linear(encoder_width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions: Tensor
        self.register_buffer("positions", sincos_positions(grid, width, num_prefix_tokens))
        kinds = [*[Block] * (depth - 1), LastBlock]
        self.blocks = nn.Sequential(
            *(kind(width, heads, mlp_ratio, qkv_bias=qkv_bias, norm_layer=norm) for kind in kinds)
        )
        self.norm = norm(width)
        self.predict = nn.Linear(width, patch_values)
        self.num_prefix_tokens = num_prefix_tokens
        initialize_mae(self)

    def forward(self, latent: Tensor, plan: MaskPlan) -> Tensor:
        """Predict the hidden patches: (B, prefix + V, D) to (B, Q, P*P*C), in the order of ``plan.masked``."""
        tokens = self.embed(latent)
        prefix, visible = tokens.split([self.num_prefix_tokens, plan.keep.shape[1]], dim=1)
        B, _, D = visible.shape
        patches = self.mask_token.to(tokens.dtype).expand(B, plan.mask.shape[1], D)
        patches = patches.scatter(1, plan.keep.unsqueeze(-1).expand(-1, -1, D), visible)
        tokens = torch.cat([prefix, patches], dim=1) + self.positions
        *first, last = self.blocks
        for block in first:
            tokens = self.run(block, tokens)
        # Visible patches have served as context: the last block and the last layer work on what is predicted alone.
        places = self.predicted(plan) + self.num_prefix_tokens
        return self.predict(self.norm(self.run(last, tokens, places)))  # type: ignore[no-any-return]


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """Return (B, N, D) as (B, heads, N, D / heads)."""
    B, N, D = tokens.shape
    return tokens.view(B, N, heads, D // heads).transpose(1, 2)


def check_decoder(width: int, heads: int, depth: int, predict_fraction: float) -> None:
    """Raise a ValueError where sizes of a decoder do not fit each other."""
    if width % heads:
        raise ValueError(f"decoder.width={width} is not divisible by decoder.heads={heads}")
    if depth < 1:
        raise ValueError(f"decoder.depth={depth} leaves no block that looks at the visible patches: choose 1 or more")
    if not 0 < predict_fraction <= 1:
        raise ValueError(
            f"decoder.predict_fraction={predict_fraction} is no share of the hidden patches: choose a number up to 1, such as 0.5"
        )


DECODERS = Registry(
    "decoder",
    Decoder,  # type: ignore[type-abstract]
    {
        "self_attention": "mae.models.decoders.SelfAttentionDecoder",
        "cross_attention": "mae.models.cross_attention.CrossAttentionDecoder",
    },
)
