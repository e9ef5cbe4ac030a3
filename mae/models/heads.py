"""Heads that turn pooled features into classes."""

from __future__ import annotations

from torch import Tensor, nn


class LinearHead(nn.Module):
    """One linear layer, (B, D) to (B, K).

    Args:
        width: D.
        classes: K.
        batch_norm: Normalise the features first by a BatchNorm without affine parameters, eps 1e-6: MAE's linear probe.
        init_std: Deviation of the truncated-normal weights; the paper's recipes use 0.01 to probe and 2e-5 to fine-tune.
    """

    def __init__(self, width: int, classes: int, *, batch_norm: bool = False, init_std: float = 2e-5) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width, affine=False, eps=1e-6) if batch_norm else nn.Identity()
        self.linear = nn.Linear(width, classes)
        nn.init.trunc_normal_(self.linear.weight, std=init_std)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, K)."""
        return self.linear(self.norm(features))  # type: ignore[no-any-return]
