"""Reconstructions as images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mae.masking.plan import MaskPlan, gather_patches
from mae.models.layers.patches import patchify, unpatchify
from mae.models.masked_model import MaskedModel


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """Standardised images (B, C, H, W): what went in, what the encoder saw, what was predicted, and both together."""

    original: Tensor
    masked: Tensor
    predicted: Tensor
    pasted: Tensor


@torch.no_grad()
def reconstruct(model: MaskedModel, images: Tensor, plan: MaskPlan, valid: Tensor | None = None) -> Reconstruction:
    """Predict the hidden patches of standardised images and put them in place; what is not shown is 0, the mean colour.

    Where images lack pixels, ``valid`` (B, H, W) says which are there.

    Where the model predicts normalised pixels, a patch is shown with its own true mean and deviation, as in the paper's
    figures: they carry no information from the model, so judge structure, not brightness.
    """
    training = model.training
    model.eval()
    prediction = model(images, plan, valid).prediction.float()
    model.train(training)
    patches = patchify(images.float(), model.patch_size)
    there = None if valid is None else model.hidden_valid(valid, plan)
    prediction = model.as_patches(prediction, gather_patches(patches, plan.masked), there)
    index = plan.masked.unsqueeze(-1).expand_as(prediction)
    predicted = torch.zeros_like(patches).scatter(1, index, prediction)
    masked, rest = plan.hide(patches), patches.masked_fill(plan.mask.unsqueeze(-1), 0.0)
    original, masked, predicted, pasted = (
        unpatchify(values, plan.grid, model.patch_size) for values in (patches, masked, predicted, rest + predicted)
    )
    return Reconstruction(original, masked, predicted, pasted)
