"""Masked patch prediction, the self-supervised objective of the ViT paper (arXiv 2010.11929, appendix B.1.2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mae.masking.corruption import CorruptionPlan
from mae.masking.plan import MaskPlan, gather_patches
from mae.models.backbones.encoder import Encoder
from mae.models.layers.patches import patchify
from mae.models.masked_model import MaskedModel, MaskedOutput
from mae.objectives.colours import COLOURS, colour_labels, colour_loss, colour_patches
from mae.objectives.masked_mse import masked_mse

TARGETS = {"mean_colour": 1, "colours_4x4": 4, "pixels": 0}
"""Cells along a side of a patch whose colours are predicted; 0 for the pixels themselves."""


class MaskedPatchPredictor(MaskedModel):
    """Corrupt patch embeddings, encode all of them, and say what the corrupted patches looked like.

    Args:
        encoder: Its patch embedding must see one patch alone: what a CNN sees of its neighbours would give hidden ones away.
        target: ``mean_colour`` (512 classes), ``colours_4x4`` (16 times 512) or ``pixels`` (regression of the patch).

    Raises:
        ValueError: The target is unknown, or does not fit the encoder.
    """

    def __init__(self, encoder: Encoder, target: str = "mean_colour") -> None:
        super().__init__(
            encoder,
            {"encoder": encoder.config, "objective": {"name": "masked_patch_prediction", "target": target}},
        )
        check_target(encoder, target)
        self.cells = TARGETS[target]
        self.predicts_colours = self.cells > 0
        values = self.cells**2 * COLOURS if self.cells else encoder.patch_size**2 * encoder.in_channels
        self.mask_embedding = nn.Parameter(torch.zeros(encoder.width))
        self.predict = nn.Linear(encoder.width, values)
        self._pixels: tuple[Tensor, Tensor] | None = None
        nn.init.normal_(self.mask_embedding, std=0.02)
        nn.init.trunc_normal_(self.predict.weight, std=0.01)  # logits start near 0, and the loss at ln 512
        nn.init.zeros_(self.predict.bias)

    def forward(self, images: Tensor, plan: MaskPlan) -> MaskedOutput:
        """Predict what the corrupted patches of standardised float images (B, C, H, W) looked like.

        Raises:
            ValueError: The plan does not say what becomes of the corrupted patches.
        """
        if not isinstance(plan, CorruptionPlan):
            raise ValueError(
                "masked patch prediction corrupts embeddings: it needs masking=corruption, a CorruptionPlan"
            )
        corrupted = plan.hide(self.encoder.embed(images), self.mask_embedding)
        tokens = self.encoder.encode(corrupted)[:, self.encoder.num_prefix_tokens :]
        prediction = self.predict(gather_patches(tokens, plan.masked))
        target = self.target(images, plan)
        if not self.predicts_colours:
            return MaskedOutput(masked_mse(prediction, target), prediction, target, plan)
        prediction = prediction.unflatten(-1, (-1, COLOURS))
        return MaskedOutput(colour_loss(prediction, target), prediction, target, plan)

    def target(self, images: Tensor, plan: MaskPlan) -> Tensor:
        """Return colour labels (B, M, cells*cells), or standardised patches (B, M, P*P*C) in float32, of the corrupted patches."""
        with torch.autocast(images.device.type, enabled=False):
            images = images if images.dtype == torch.float64 else images.float()
            if self.predicts_colours:
                mean, std = self._statistics(images)
                images = images * std + mean
            hidden = gather_patches(patchify(images, self.patch_size), plan.masked)
            return colour_labels(hidden, self.cells) if self.predicts_colours else hidden

    def as_pixels(self, prediction: Tensor, hidden: Tensor) -> Tensor:
        """Return a prediction as standardised patches (B, M, P*P*C); a colour is shown by the middle of its bin."""
        if not self.predicts_colours:
            return prediction
        colours = colour_patches(prediction.argmax(dim=-1), self.patch_size)
        mean, std = (values.flatten().repeat(self.patch_size**2) for values in self._statistics(hidden))
        return (colours - mean) / std

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return (C, 1, 1) mean and deviation, which turn standardised pixels into colours in [0, 1]."""
        mean, std = self.encoder.pixel_mean, self.encoder.pixel_std
        assert mean is not None and std is not None, "pixels not measured"
        # Kept, since copying numbers to a GPU at each step would wait for it.
        if self._pixels is None or self._pixels[0].device != like.device or self._pixels[0].dtype != like.dtype:
            self._pixels = like.new_tensor(mean).view(-1, 1, 1), like.new_tensor(std).view(-1, 1, 1)
        return self._pixels


def check_target(encoder: Encoder, target: Any) -> None:
    """Raise a ValueError where an encoder cannot learn this target."""
    if target not in TARGETS:
        raise ValueError(f"objective.target={target!r} is unknown: choose one of {', '.join(TARGETS)}")
    if encoder.hybrid:
        raise ValueError(
            f"objective=masked_patch_prediction corrupts patch embeddings, and the CNN of {encoder.config['name']} sees beyond its "
            f"patch: masked ones would leak through its receptive field; choose objective=pixels, which hides the pixels "
            f"themselves, or a plain ViT"
        )
    if TARGETS[target] and encoder.in_channels != 3:
        raise ValueError(
            f"objective.target={target} predicts colours, and data.channels={encoder.in_channels}: data.channels=3 shows grey "
            f"images as colour ones, objective.target=pixels takes any channels"
        )
    if TARGETS[target] and encoder.patch_size % TARGETS[target]:
        raise ValueError(
            f"objective.target={target} cuts patches into 4x4, and model.patch_size={encoder.patch_size}: choose a multiple of 4, "
            f"or objective.target=mean_colour"
        )
