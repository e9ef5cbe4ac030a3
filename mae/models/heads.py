"""Heads that turn features into classes."""

from __future__ import annotations

import torch
from timm.layers import AttentionPoolLatent
from torch import Tensor, nn

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh}


class LinearHead(nn.Module):
    """One linear layer, (B, D) to (B, K).

    Args:
        width: D.
        classes: K.
        batch_norm: Normalise the features first by a BatchNorm without affine parameters, eps 1e-6: MAE's linear probe.
        init_std: Deviation of the truncated-normal weights; MAE's recipes use 0.01 to probe and 2e-5 to fine-tune, and the ViT
            paper fine-tunes from 0 (Dosovitskiy et al. 2020, section 3.2).
    """

    def __init__(self, width: int, classes: int, *, batch_norm: bool = False, init_std: float = 2e-5) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width, affine=False, eps=1e-6) if batch_norm else nn.Identity()
        self.linear = _final_layer(width, classes, init_std)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, K)."""
        return self.linear(self.norm(features))  # type: ignore[no-any-return]

    @torch.no_grad()
    def take(self, weight: Tensor, bias: Tensor) -> None:
        """Become the classifier ``features @ weight.T + bias`` of features as they are: what the norm does in eval mode is undone.

        Args:
            weight: (K, D).
            bias: (K,), finite.
        """
        weight, bias = weight.double(), bias.double()  # a mean far from zero leaves float32 few digits
        if isinstance(self.norm, nn.BatchNorm1d):
            mean, var = (values.double().cpu() for values in statistics_of(self.norm))
            bias = bias + weight @ mean
            weight = weight * (var + self.norm.eps).sqrt()
        self.linear.weight.copy_(weight)
        self.linear.bias.copy_(bias)


class MLPHead(nn.Module):
    """Two linear layers with an activation between, (B, D) to (B, K).

    With ``tanh`` and a hidden layer of D it is the head that the ViT paper pretrains with; with ``relu`` and 4 D labml's.

    Args:
        width: D.
        classes: K.
        hidden: Width of the hidden layer; None takes D.
        activation: ``relu``, ``gelu`` or ``tanh``.
        batch_norm: As in LinearHead.
        init_std: Deviation of the last layer's weights.

    Raises:
        ValueError: The activation is unknown.
    """

    def __init__(
        self,
        width: int,
        classes: int,
        *,
        hidden: int | None = None,
        activation: str = "gelu",
        batch_norm: bool = False,
        init_std: float = 0.01,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"protocol.activation={activation!r} is unknown: choose one of {', '.join(ACTIVATIONS)}")
        hidden = hidden or width
        self.norm = nn.BatchNorm1d(width, affine=False, eps=1e-6) if batch_norm else nn.Identity()
        self.hidden = nn.Linear(width, hidden)
        self.activation = ACTIVATIONS[activation]()
        self.linear = _final_layer(hidden, classes, init_std)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, K)."""
        return self.linear(self.activation(self.hidden(self.norm(features))))  # type: ignore[no-any-return]


class AttentiveHead(nn.Module):
    """A learned query attends to all tokens, then a linear head: (B, N, D) to (B, K).

    Attentive probing (Chen et al. 2022, arXiv 2202.03026): it asks what the tokens hold, where an average may have lost it.

    Args:
        width: D.
        classes: K.
        heads: Attention heads; must divide D.
        mlp_ratio: Hidden width over D of the MLP that follows the attention.
        batch_norm: Of the linear head.
        init_std: Of the linear head.

    Raises:
        ValueError: The heads do not divide the width.
    """

    def __init__(
        self,
        width: int,
        classes: int,
        *,
        heads: int,
        mlp_ratio: float = 4.0,
        batch_norm: bool = False,
        init_std: float = 0.01,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"protocol.heads={heads} does not divide the encoder's width of {width}")
        self.pool = AttentionPoolLatent(width, num_heads=heads, mlp_ratio=mlp_ratio, norm_layer=nn.LayerNorm)
        self.head = LinearHead(width, classes, batch_norm=batch_norm, init_std=init_std)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits (B, K)."""
        return self.head(self.pool(tokens))  # type: ignore[no-any-return]


def statistics_of(norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """Return the mean (D,) and variance (D,) that a BatchNorm standardises by in eval mode."""
    assert norm.running_mean is not None and norm.running_var is not None, "built to keep statistics"
    return norm.running_mean, norm.running_var


@torch.no_grad()
def keep_statistics(norm: nn.BatchNorm1d, features: Tensor) -> None:
    """Let a BatchNorm standardise in eval mode by the mean and variance of features (N, D)."""
    for kept, found in zip(statistics_of(norm), (features.mean(0), features.var(0, correction=0)), strict=True):
        kept.copy_(found)


def _final_layer(width: int, classes: int, init_std: float) -> nn.Linear:
    layer = nn.Linear(width, classes)
    if init_std:
        nn.init.trunc_normal_(layer.weight, std=init_std)
    else:
        nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
