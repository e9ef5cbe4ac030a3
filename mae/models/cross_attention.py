"""CrossMAE's decoder: hidden patches look at the visible ones alone (Fu et al. 2024, arXiv 2401.14391)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.layers import Mlp
from torch import Tensor, nn

from mae.masking.plan import MaskPlan, gather_patches
from mae.models.decoders import Decoder, check_decoder, split_heads
from mae.models.layers.initialize import initialize_mae
from mae.models.layers.positions import sincos_positions


class CrossAttentionBlock(nn.Module):
    """Mask tokens take of the encoded patches, then pass an MLP; they do not see each other.

    Args:
        width: D of the decoder.
        context_width: D of the encoder.
        heads: Attention heads.
        mlp_ratio: Hidden width of the MLP over the width.
        qkv_bias: Whether queries, keys and values have biases.
        norm_eps: Epsilon of the LayerNorms.
    """

    def __init__(
        self, width: int, context_width: int, heads: int, mlp_ratio: float, qkv_bias: bool, norm_eps: float
    ) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.query = nn.Linear(width, width, bias=qkv_bias)
        self.key_value = nn.Linear(context_width, 2 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = Mlp(width, int(width * mlp_ratio))

    def forward(self, tokens: Tensor, context: Tensor) -> Tensor:
        """Return tokens (B, Q, D) that have looked at the context (B, N, D of the encoder)."""
        k, v = self.key_value(context).chunk(2, dim=-1)
        q, k, v = (split_heads(part, self.heads) for part in (self.query(self.norm1(tokens)), k, v))
        tokens = tokens + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return tokens + self.mlp(self.norm2(tokens))  # type: ignore[no-any-return]


class CrossAttentionDecoder(Decoder):
    """Mask tokens with positions attend to the encoded patches, and not to each other.

    So each hidden patch is predicted for itself, and a part of them may be left out at a step, which costs less.

    Args:
        encoder_width: D of the encoder.
        patch_values: P*P*C, what is predicted for each hidden patch.
        grid: (Gh, Gw).
        num_prefix_tokens: Class and register tokens in front of the patches; they are looked at, too.
        width: D of the decoder; the paper's is 512.
        depth: Blocks; the paper's 12.
        heads: The paper's 16.
        mlp_ratio: Hidden width of the MLP over the width.
        qkv_bias: Whether queries, keys and values have biases.
        norm_eps: Epsilon of every LayerNorm.
        predict_fraction: Share of the hidden patches that is predicted at a step; the paper has 1/3 and 1.
        fuse: Last blocks of the encoder whose tokens are mixed for each block of the decoder, by weights that it learns (the
            paper's inter-block attention, over all of them); 0 takes the last ones alone.

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
        depth: int = 12,
        heads: int = 16,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        norm_eps: float = 1e-6,
        predict_fraction: float = 0.5,
        fuse: int = 0,
    ) -> None:
        super().__init__()
        check_decoder(width, heads, depth, predict_fraction)
        if fuse < 0:
            raise ValueError(f"decoder.fuse={fuse} is no number of blocks: choose 0, or as many as the encoder has")
        self.levels = fuse
        self.predict_fraction = predict_fraction
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions: Tensor
        self.register_buffer("positions", sincos_positions(grid, width, 0))
        self.blocks = nn.ModuleList(
            CrossAttentionBlock(width, encoder_width, heads, mlp_ratio, qkv_bias, norm_eps) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=norm_eps)
        self.predict = nn.Linear(width, patch_values)
        initialize_mae(self)
        if fuse:
            self.mix = nn.Parameter(torch.empty(depth, fuse).normal_(std=fuse**-0.5))
            self.context_norms = nn.ModuleList(nn.LayerNorm(encoder_width, eps=norm_eps) for _ in range(depth))

    def forward(self, latent: Tensor, plan: MaskPlan) -> Tensor:
        """Predict the hidden patches: (B, prefix + V, D) to (B, Q, P*P*C), in the order of ``plan.masked``.

        Where levels are fused, ``latent`` is (fuse, B, prefix + V, D).
        """
        places = self.predicted(plan)
        tokens = gather_patches(self.positions.expand(len(places), -1, -1), places) + self.mask_token
        for number, block in enumerate(self.blocks):
            tokens = self.run(block, tokens, self._fused(latent, number) if self.levels else latent)
        return self.predict(self.norm(tokens))  # type: ignore[no-any-return]

    def _fused(self, latent: Tensor, number: int) -> Tensor:
        """Return what a block looks at, (B, N, D), of the levels of the encoder."""
        return self.context_norms[number](torch.tensordot(self.mix[number].to(latent.dtype), latent, dims=1))  # type: ignore[no-any-return]
