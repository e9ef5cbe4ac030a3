"""The loss of a masked autoencoder."""

from __future__ import annotations

import torch
from torch import Tensor


def masked_mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over the hidden patches alone: two tensors (B, M, P*P*C) to a scalar.

    Both hold hidden patches only, so visible patches cannot enter. It is computed in float32 (float64 stays), also under
    autocast: bf16 keeps eight bits, too few for a difference of pixels.
    """
    with torch.autocast(prediction.device.type, enabled=False):
        if target.dtype != torch.float64:
            prediction, target = prediction.float(), target.float()
        return (prediction - target).square().mean()
