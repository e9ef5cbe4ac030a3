"""An encoder that sees every patch, pooling, and a head."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mae.models.backbones.backbone import Backbone

POOLINGS = ("mean", "token", "tokens", "all")


def pool_tokens(encoder: Backbone, tokens: Tensor, pool: str) -> Tensor:
    """Pool the tokens (B, prefix + L, D) of an encoder to features (B, ``pooled_width``).

    Args:
        encoder: Whose tokens they are.
        tokens: Normalised or not.
        pool: ``mean`` of the patches; the class ``token``, or of several the mean; the class ``tokens`` one after the other; or
            ``all``, which leaves them.
    """
    if pool == "mean":
        return tokens[:, encoder.num_prefix_tokens :].mean(dim=1)
    if pool == "all":
        return tokens
    classes = tokens[:, : encoder.class_tokens]
    return classes.mean(dim=1) if pool == "token" else classes.flatten(1)


def pooled_width(encoder: Backbone, pool: str) -> int:
    """Return the width of pooled features: D, or that of all class tokens together."""
    return encoder.width * encoder.class_tokens if pool == "tokens" else encoder.width


class Classifier(nn.Module):
    """Images (B, C, H, W) to logits (B, K).

    Args:
        encoder: Every patch is seen; nothing is masked.
        head: (B, ``pooled_width``) to (B, K), or with ``pool="all"`` (B, prefix + L, D) to (B, K).
        pool: As ``pool_tokens`` takes it; ``all`` for a head that pools itself.
        blocks: How many of the last blocks learn: None all of the encoder, 0 nothing of it; see ``Backbone.freeze_all_but``.
        frozen: Parts of the head that stay in eval mode, such as a norm whose statistics are fixed.

    An encoder that learns, with mean pooling, pools first and normalises then, and its last norm starts afresh, as in the
    paper's released recipe. A frozen one normalises first, as it was trained.

    Raises:
        ValueError: The pooling is unknown, or asks for a class token that the encoder lacks; or the blocks are not there.
    """

    def __init__(
        self,
        encoder: Backbone,
        head: nn.Module,
        *,
        pool: str = "mean",
        blocks: float | None = None,
        frozen: Sequence[nn.Module] = (),
    ) -> None:
        super().__init__()
        check_pool(encoder, pool)
        self.encoder = encoder
        self.head = head
        self.pool = pool
        self.pools_first = pool == "mean" and blocks != 0
        self._frozen = [*encoder.freeze_all_but(blocks), *frozen]
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
        """Return pooled features, or all tokens (B, prefix + L, D)."""
        if self.pools_first:
            return self.encoder.normalize(pool_tokens(self.encoder, self.encoder.trunk(images), self.pool))
        return pool_tokens(self.encoder, self.encoder(images), self.pool)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K)."""
        return self.head(self.features(images))  # type: ignore[no-any-return]


def check_pool(encoder: Backbone, pool: str) -> None:
    """Raise a ValueError where the encoder cannot be pooled this way."""
    if pool not in POOLINGS:
        raise ValueError(f"pool={pool!r} is unknown: choose one of {', '.join(POOLINGS)}")
    if pool in ("token", "tokens") and not encoder.class_tokens:
        raise ValueError(f"pool={pool} needs a class token, which {encoder.name} has not: choose pool=mean")
