"""The target of a masked autoencoder: pixels, normalised patch by patch or as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mae.objectives.masked_mse import masked_mse
from mae.objectives.objective import Objective, PixelScale, Trivial

EPSILON = 1e-6  # inside the root, as in the released code


class Pixels(Objective):
    """Mean squared error on the hidden patches (He et al. 2021, section 3).

    Args:
        normalize: Each patch by its own mean and deviation, which gives better features; or pixels as they are.
    """

    def __init__(self, normalize: bool = True) -> None:
        self.normalize = normalize

    def width(self, patch_size: int, channels: int) -> int:
        """Return P*P*C."""
        return patch_size**2 * channels

    def target(self, hidden: Tensor, scale: PixelScale, valid: Tensor | None = None) -> Tensor:
        """Return the patches, normalised where that is asked for, by their valid pixels."""
        return normalize_patches(hidden, valid) if self.normalize else hidden

    def loss(self, prediction: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return the mean squared error, on valid pixels."""
        return masked_mse(prediction, target, valid)

    def as_patches(self, prediction: Tensor, hidden: Tensor, scale: PixelScale, valid: Tensor | None = None) -> Tensor:
        """Return a prediction as standardised patches; normalised ones by the true mean and deviation."""
        return denormalize_patches(prediction, hidden, valid) if self.normalize else prediction

    def trivial(self, figures: Mapping[str, Any]) -> Trivial | None:
        """Return the loss of each patch's mean, where patches are normalised: that of plain ones is not measured."""
        if not self.normalize:
            return None
        return Trivial(figures.get("patch_mean_loss", 1.0), "predicting each patch's mean")

    def concern(self, figures: Mapping[str, Any]) -> str | None:
        """Judge the share of patches that are nearly one colour: normalising makes noise of them."""
        share = figures.get("flat_patches", 0.0)
        if not self.normalize or share <= 0.5:
            return None
        return (
            f"{share:.0%} of the patches are nearly one colour: there is nothing to reconstruct in them, and their normalised "
            f"pixels are noise or zero. Crop the images to what they show, raise model.patch_size, or set "
            f"objective.normalize=false."
        )

    @property
    def what(self) -> str:
        """What the loss is measured on."""
        return "hidden, normalised patches" if self.normalize else "hidden patches"

    @property
    def caption(self) -> str:
        """What a picture shows, and what in it the model did not predict."""
        if not self.normalize:
            return super().caption
        return (
            f"{super().caption} Each hidden patch is shown with its own true mean and deviation, which the model does not "
            f"predict: judge structure, not brightness."
        )


def patch_statistics(patches: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each patch, (..., 1) each, in at least float32.

    The variance is the unbiased one (He et al.'s released code), with 1e-6 inside the root. Of valid values alone, where these are
    given as bool (..., P*P*C); a patch of less than two has variance 0.
    """
    patches = patches if patches.dtype == torch.float64 else patches.float()
    if valid is None:
        mean, variance = patches.mean(dim=-1, keepdim=True), patches.var(dim=-1, keepdim=True, unbiased=True)
    else:
        count = valid.sum(dim=-1, keepdim=True)
        mean = torch.where(valid, patches, 0.0).sum(dim=-1, keepdim=True) / count.clamp(min=1)
        variance = torch.where(valid, patches - mean, 0.0).square().sum(dim=-1, keepdim=True) / (count - 1).clamp(min=1)
    return mean, (variance + EPSILON).sqrt()


def normalize_patches(patches: Tensor, valid: Tensor | None = None) -> Tensor:
    """Give each patch vector (..., P*P*C) mean 0 and variance 1, over its valid values where these are given."""
    mean, deviation = patch_statistics(patches, valid)
    return (patches - mean) / deviation


def denormalize_patches(normalized: Tensor, patches: Tensor, valid: Tensor | None = None) -> Tensor:
    """Undo normalize_patches with the statistics of the true patches: the inverse, and how predictions are shown."""
    mean, deviation = patch_statistics(patches, valid)
    return normalized * deviation + mean
