"""An encoder that sees every patch, pooling, and a head."""

from __future__ import annotations

from torch import Tensor, nn

from mae.models.backbones.backbone import Backbone

POOLINGS = ("mean", "token", "all")


def pool_tokens(tokens: Tensor, prefix: int, pool: str) -> Tensor:
    """Pool (B, prefix + L, D) to (B, D): ``mean`` of the patch tokens, or the class ``token``; ``all`` leaves them."""
    if pool == "all":
        return tokens
    return tokens[:, 0] if pool == "token" else tokens[:, prefix:].mean(dim=1)


class Classifier(nn.Module):
    """Images (B, C, H, W) to logits (B, K).

    Args:
        encoder: Every patch is seen; nothing is masked.
        head: (B, D) to (B, K), or with ``pool="all"`` (B, prefix + L, D) to (B, K).
        pool: ``mean`` over the patch tokens, the class ``token``, or ``all`` tokens for a head that pools itself.
        blocks: How many of the last blocks learn: None all of the encoder, 0 nothing of it; see ``Backbone.freeze_all_but``.

    An encoder that learns, with mean pooling, pools first and normalises then, and its last norm starts afresh, as in the
    paper's released recipe. A frozen one normalises first, as it was trained.

    Raises:
        ValueError: The pooling is unknown, or asks for a class token that the encoder lacks; or the blocks are not there.
    """

    def __init__(self, encoder: Backbone, head: nn.Module, *, pool: str = "mean", blocks: float | None = None) -> None:
        super().__init__()
        check_pool(encoder, pool)
        self.encoder = encoder
        self.head = head
        self.pool = pool
        self.pools_first = pool == "mean" and blocks != 0
        self._frozen = encoder.freeze_all_but(blocks)
        if blocks != 0:
            encoder.whitening = None  # it does not fit the features of an encoder that goes on to learn
        if self.pools_first:
            encoder.restart_norm()
        self.train(self.training)

    def train(self, mode: bool = True) -> Classifier:
        """Switch mode; what is frozen stays in eval mode, its statistics and stochastic depth too."""
        super().train(mode)
        for part in self._frozen:
            part.eval()
        return self

    def features(self, images: Tensor) -> Tensor:
        """Return pooled features (B, D), or all tokens (B, prefix + L, D)."""
        prefix = self.encoder.num_prefix_tokens
        if self.pools_first:
            return self.encoder.normalize(pool_tokens(self.encoder.trunk(images), prefix, self.pool))
        return pool_tokens(self.encoder(images), prefix, self.pool)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K)."""
        return self.head(self.features(images))  # type: ignore[no-any-return]


def check_pool(encoder: Backbone, pool: str) -> None:
    """Raise a ValueError where the encoder cannot be pooled this way."""
    if pool not in POOLINGS:
        raise ValueError(f"pool={pool!r} is unknown: choose one of {', '.join(POOLINGS)}")
    if pool == "token" and not encoder.has_class_token:
        raise ValueError(f"pool=token needs a class token, which {encoder.name} has not: choose pool=mean")
