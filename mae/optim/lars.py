"""LARS in which a bias takes steps of its weight's size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from timm.optim import Lars
from torch import Tensor, nn

TRUST = 0.001
"""A step changes a matrix by this share of its norm, times the rate (You et al. 2017, arXiv 1708.03888)."""
PAIRED = "paired"
"""The key of the first group that says so; the state of an earlier version lacks it."""


def biases_of(module: nn.Module) -> list[tuple[nn.Parameter, nn.Parameter]]:
    """Return (weight, bias) of every layer that has a matrix and a bias."""
    pairs = ((getattr(part, "weight", None), getattr(part, "bias", None)) for part in module.modules())
    return [
        (weight, bias)
        for weight, bias in pairs
        if isinstance(weight, nn.Parameter) and isinstance(bias, nn.Parameter) and weight.ndim > 1
    ]


class PairedLars(Lars):  # type: ignore[misc]
    """timm's LARS, in which the gradient of a bias is scaled by the trust ratio of its weight.

    LARS adapts a matrix to its norm, and rates of up to 20 are meant for that. A bias starts at zero and has no norm to adapt to;
    left plain, as in the original, it takes steps a thousand times as large as its weight's, and the loss rises far above chance.

    A run that began without this goes on without it: its biases are where only such steps bring them back. Whether they are
    paired is kept with the state, in the first group.

    Args:
        groups: Of parameters; matrices with ``always_adapt``.
        pairs: (weight, bias) of layers; a bias that is in none stays plain.
        options: Of timm's LARS.
    """

    def __init__(
        self, groups: list[dict[str, Any]], pairs: list[tuple[nn.Parameter, nn.Parameter]], **options: Any
    ) -> None:
        super().__init__(groups, trust_coeff=TRUST, **options)
        self.param_groups[0][PAIRED] = True
        decays = {id(one): group["weight_decay"] for group in groups for one in group["params"]}
        self._pairs = [
            (weight, bias, decays[id(weight)]) for weight, bias in pairs if {id(weight), id(bias)} <= {*decays}
        ]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step; gradients of biases are changed in place."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for weight, bias, decay in self._pairs if self.param_groups[0].get(PAIRED) else ():
            if weight.grad is not None and bias.grad is not None:
                bias.grad.mul_(trust_ratio(weight, weight.grad, decay))
        super().step()
        return loss


def trust_ratio(weight: Tensor, gradient: Tensor, decay: float) -> Tensor:
    """Return by what timm's LARS scales the gradient of a weight: 1 where one of the two is zero."""
    w, g = weight.norm(2.0), gradient.norm(2.0)
    ratio = TRUST * w / (g + decay * w + 1e-8)
    return torch.where((w > 0) & (g > 0), ratio, torch.ones_like(ratio))
