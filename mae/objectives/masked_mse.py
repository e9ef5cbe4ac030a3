"""The loss of a masked autoencoder."""

from __future__ import annotations

import torch
from torch import Tensor


def masked_mse(prediction: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean squared error over the hidden patches alone: two tensors (B, M, P*P*C) to a scalar.

    Of values that are valid alone, where that is given, as bool (B, M, P*P*C): each image's own mean, so that an image weighs the
    same in whatever batch; one without any adds nothing.

    Both hold hidden patches only, so visible patches cannot enter. It is computed in float32 (float64 stays), also under
    autocast: bf16 keeps eight bits, too few for a difference of pixels.
    """
    with torch.autocast(prediction.device.type, enabled=False):
        if target.dtype != torch.float64:
            prediction, target = prediction.float(), target.float()
        squares = (prediction - target).square()
        return squares.mean() if valid is None else mean_of_valid(squares, valid)


def mean_of_valid(values: Tensor, valid: Tensor) -> Tensor:
    """Return the mean over images of each image's mean over its valid values: (B, ...) and bool (B, ...) to a scalar."""
    counts = valid.flatten(1).sum(dim=1)
    sums = torch.where(valid, values, 0.0).flatten(1).sum(dim=1)
    return (sums / counts.clamp(min=1)).mean()
