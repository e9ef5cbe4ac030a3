"""Decoders: encoded visible patches to predicted hidden patches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import Any

import torch
from timm.models import checkpoint_seq
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from mae.components.registry import Registry
from mae.masking.plan import MaskPlan, gather_patches
from mae.models.layers.initialize import initialize_mae
from mae.models.layers.positions import sincos_positions


class Decoder(nn.Module, ABC):
    """Encoded visible patches to what is predicted of the hidden ones.

    A decoder is built as ``Class(encoder_width, patch_values, grid, num_prefix_tokens, **options)``, and its options are the keys
    of the config group ``decoder``. Its weights are stored under ``decoder.``; a buffer ``positions`` may be missing from a file.

    Attributes:
        config: What it was made from, where a registry made it.
    """

    config: dict[str, Any]

    @abstractmethod
    def forward(self, latent: Tensor, plan: MaskPlan) -> Tensor:
        """Predict the hidden patches.

        Args:
            latent: (B, prefix + V, D of the encoder): class and register tokens, then the visible patches in the order of
                ``plan.keep``.
            plan: Which patch each of them is, and which are to be predicted.

        Returns:
            (B, M, patch_values), in the order of ``plan.masked``.
        """

    def set_grad_checkpointing(self) -> None:
        """Compute layers again on the way back, which takes less memory; a decoder that cannot keeps what it computes."""


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
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"decoder.width={width} is not divisible by decoder.heads={heads}")
        norm = partial(nn.LayerNorm, eps=norm_eps)
        self.embed = nn.Linear(encoder_width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions: Tensor
        self.register_buffer("positions", sincos_positions(grid, width, num_prefix_tokens))
        self.blocks = nn.Sequential(
            *(Block(width, heads, mlp_ratio, qkv_bias=qkv_bias, norm_layer=norm) for _ in range(depth))
        )
        self.norm = norm(width)
        self.predict = nn.Linear(width, patch_values)
        self.num_prefix_tokens = num_prefix_tokens
        self._checkpoints = False
        initialize_mae(self)

    def forward(self, latent: Tensor, plan: MaskPlan) -> Tensor:
        """Predict the hidden patches: (B, prefix + V, D) to (B, M, P*P*C), in the order of ``plan.masked``."""
        tokens = self.embed(latent)
        prefix, visible = tokens.split([self.num_prefix_tokens, plan.keep.shape[1]], dim=1)
        B, _, D = visible.shape
        patches = self.mask_token.to(tokens.dtype).expand(B, plan.mask.shape[1], D)
        patches = patches.scatter(1, plan.keep.unsqueeze(-1).expand(-1, -1, D), visible)
        tokens = torch.cat([prefix, patches], dim=1) + self.positions
        run = partial(checkpoint_seq, self.blocks) if self._checkpoints else self.blocks
        tokens = run(tokens)[:, self.num_prefix_tokens :]
        # Visible patches have served as context; only hidden ones are predicted, a quarter of the last layer less.
        return self.predict(self.norm(gather_patches(tokens, plan.masked)))  # type: ignore[no-any-return]

    def set_grad_checkpointing(self) -> None:
        """Compute blocks again on the way back."""
        self._checkpoints = True


DECODERS = Registry(
    "decoder",
    Decoder,  # type: ignore[type-abstract]
    {"self_attention": "mae.models.decoders.SelfAttentionDecoder"},
)
