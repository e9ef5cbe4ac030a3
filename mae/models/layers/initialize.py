"""How weights start."""

from __future__ import annotations

from timm.layers import HybridEmbed
from torch import nn

INITS = ("mae", "timm", "torch")
"""The MAE paper's, timm's (truncated normal of deviation 0.02), or each layer's default in torch."""


def initialize_mae(module: nn.Module) -> None:
    """Initialise as MAE does: Linear and the patch convolution (as a flat Linear) Xavier-uniform, biases zero, norms one,
    class, register and mask tokens normal with deviation 0.02. The CNN of a hybrid keeps its own.
    """  # noqa: D205
    own = {id(inner) for part in module.modules() if isinstance(part, HybridEmbed) for inner in part.backbone.modules()}
    for part in module.modules():
        if id(part) in own:
            continue
        if isinstance(part, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(
                part.weight.flatten(1) if isinstance(part, nn.Linear) else part.weight.data.flatten(1)
            )
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
    for name, parameter in module.named_parameters():
        if name.rpartition(".")[2] in ("cls_token", "reg_token", "mask_token"):
            nn.init.normal_(parameter, std=0.02)
