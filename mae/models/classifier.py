"""An encoder that sees every patch, pooling, and a head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mae.models.encoder import Encoder

POOLINGS = ("mean", "token")


def pool_tokens(tokens: Tensor, prefix: int, pool: str) -> Tensor:
    """Pool (B, prefix + L, D) to (B, D): ``mean`` of the patch tokens, or the class ``token``."""
    return tokens[:, 0] if pool == "token" else tokens[:, prefix:].mean(dim=1)


class Classifier(nn.Module):
    """Images (B, C, H, W) to logits (B, K).

    Args:
        encoder: Every patch is seen; nothing is masked.
        head: (B, D) to (B, K).
        pool: ``mean`` over the patch tokens or the class ``token``.
        frozen: The encoder gets no gradient and stays in eval mode, whatever ``train()`` says.

    A fine-tuned encoder with mean pooling pools first and normalises then, and its last norm starts afresh, as in the
    paper's released recipe. A frozen one normalises first, as it was trained.

    Raises:
        ValueError: The pooling is unknown, or asks for a class token that the encoder lacks.
    """

    def __init__(self, encoder: Encoder, head: nn.Module, *, pool: str = "mean", frozen: bool = False) -> None:
        super().__init__()
        check_pool(encoder, pool)
        self.encoder = encoder
        self.head = head
        self.pool = pool
        self.frozen = frozen
        if frozen:
            encoder.requires_grad_(False).eval()
        else:
            encoder.requires_grad_(True)  # fixed positions too: the paper fine-tunes them
            if pool == "mean":
                encoder.vit.norm.reset_parameters()

    def train(self, mode: bool = True) -> Classifier:
        """Switch mode; a frozen encoder stays in eval mode, its statistics and stochastic depth too."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def features(self, images: Tensor) -> Tensor:
        """Return pooled features (B, D)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            if self.pool == "mean" and not self.frozen:
                tokens = self.encoder.trunk(images)
                return self.encoder.vit.norm(pool_tokens(tokens, self.encoder.num_prefix_tokens, self.pool))  # type: ignore[no-any-return]
            return pool_tokens(self.encoder(images), self.encoder.num_prefix_tokens, self.pool)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K)."""
        return self.head(self.features(images))  # type: ignore[no-any-return]


def check_pool(encoder: Encoder, pool: str) -> None:
    """Raise a ValueError where the encoder cannot be pooled this way."""
    if pool not in POOLINGS:
        raise ValueError(f"pool={pool!r} is unknown: choose one of {', '.join(POOLINGS)}")
    if pool == "token" and encoder.vit.cls_token is None:
        raise ValueError(f"pool=token needs a class token, which {encoder.config['name']} has not: choose pool=mean")
