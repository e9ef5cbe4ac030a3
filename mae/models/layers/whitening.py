"""Whitening: features without the few directions that hold nearly all of their variance, and little of the classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

ROUNDING = 1e-6
"""Deviation over magnitude up to which a feature is constant: what float32 leaves of a mean over patches."""


class Whitening(nn.Module):
    """Centres features (N, D), and turns and scales them so that they do not correlate and each has a variance of about 1.

    Attributes:
        mean: (D,), of the features that it was fitted on.
        matrix: (D, D), symmetric but for the scale of each feature, so that a feature stays near its place.
    """

    mean: Tensor
    matrix: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("matrix", torch.eye(width))

    @classmethod
    def fit(cls, features: Tensor, *, power: float = 1.0) -> Whitening:
        """Fit on features (N, D), which need no labels; computed in float64 on the CPU, kept in float32.

        Each feature is standardised, and the variances along the principal directions are raised by D/N of their median, which
        is about as much as so few images can hide: fewer images than features are enough, and what does not vary but for
        rounding is not blown up. Shrinking towards the mean variance (Ledoit and Wolf 2004) would drown the small directions
        where three hold 99% of it. A feature that is constant is left out: it is 0 from then on.

        Args:
            features: (N, D).
            power: 1 leaves a variance of 1 along every direction, 0.5 its root: the large directions stay the larger ones.

        Raises:
            ValueError: There are fewer than two images, or features that are not finite.
        """
        if features.ndim != 2 or len(features) < 2:
            raise ValueError(
                f"features of shape {tuple(features.shape)} cannot be whitened: give (N, D) of two images or more"
            )
        if not features.isfinite().all():
            raise ValueError("features that are not finite cannot be whitened: training diverged; lower optim.base_lr")
        x = features.detach().cpu().double()
        std, mean = torch.std_mean(x, dim=0, correction=0)
        varies = std > ROUNDING * x.abs().amax(dim=0)
        gain = torch.where(varies, 1 / std, 0.0)
        x = (x - mean) * gain
        variance, directions = torch.linalg.eigh(x.T @ x / len(x))
        varied = variance[variance > ROUNDING**2 * variance[-1]]
        hidden = varied.median() * x.shape[1] / len(x) if len(varied) else 1.0
        scale = (variance.clamp_min(0) + hidden).pow(-power / 2)
        whitening = cls(features.shape[1])
        whitening.mean.copy_(mean)
        whitening.matrix.copy_(gain[:, None] * (directions * scale) @ directions.T)
        return whitening

    def forward(self, features: Tensor) -> Tensor:
        """Return features (N, D), whitened, in float32."""
        return (features.float() - self.mean) @ self.matrix
