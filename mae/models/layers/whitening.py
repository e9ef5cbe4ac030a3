"""Whitening: features without the few directions that hold nearly all of their variance, and little of the classes."""

from __future__ import annotations

import torch
from sklearn.covariance import ledoit_wolf
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
    def fit(cls, features: Tensor) -> Whitening:
        """Fit on features (N, D), which need no labels; computed in float64, kept in float32, on the device of the features.

        Each feature is standardised, and their correlations are shrunk towards none by Ledoit and Wolf's estimate (2004, A
        well-conditioned estimator for large-dimensional covariance matrices), so that fewer images than features are enough. A
        feature that does not vary is left out: it is 0 from then on.

        Raises:
            ValueError: There are fewer than two images, or features that are not finite.
        """
        if features.ndim != 2 or len(features) < 2:
            raise ValueError(
                f"features of shape {tuple(features.shape)} cannot be whitened: give (N, D) of two images or more"
            )
        if not features.isfinite().all():
            raise ValueError("features that are not finite cannot be whitened: training diverged; lower optim.base_lr")
        x = features.detach().double()
        std, mean = torch.std_mean(x, dim=0, correction=0)
        varies = std > ROUNDING * x.abs().amax(dim=0)
        gain = torch.where(varies, 1 / std, 0.0)
        correlation, _ = ledoit_wolf(((x - mean) * gain).cpu().numpy(), assume_centered=True)
        variance, directions = torch.linalg.eigh(torch.from_numpy(correlation).to(x.device))
        whitening = cls(features.shape[1]).to(features.device)
        whitening.mean.copy_(mean)
        whitening.matrix.copy_(gain[:, None] * (directions * variance.rsqrt()) @ directions.T)
        return whitening

    def forward(self, features: Tensor) -> Tensor:
        """Return features (N, D), whitened, in float32."""
        return (features.float() - self.mean) @ self.matrix
