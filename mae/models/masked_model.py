"""What every pretraining model has in common: an encoder, a plan that says what is hidden, and an objective on it."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mae.masking.plan import MaskPlan, gather_patches
from mae.models.backbones.backbone import PatchBackbone
from mae.models.layers.patches import patchify
from mae.objectives.objective import Objective, PixelScale


@dataclass(frozen=True, eq=False)
class MaskedOutput:
    """What one pass gives: ``loss`` (scalar), ``prediction`` and ``target`` for the M hidden patches, and the ``plan``.

    Both are (B, M, P*P*C) pixels; or logits (B, M, cells*cells, 512) and labels (B, M, cells*cells) of colours; or what else the
    objective asks for. A decoder that predicts a share at a step gives the first Q of ``plan.masked`` in training mode.
    """

    loss: Tensor
    prediction: Tensor
    target: Tensor
    plan: MaskPlan


class MaskedModel(nn.Module, ABC):
    """A model that predicts what a plan hides of an image.

    Attributes:
        encoder: What is kept of it.
        objective: What is predicted, and how it is scored.
    """

    def __init__(self, encoder: PatchBackbone, objective: Objective) -> None:
        super().__init__()
        objective.check(patch_size=encoder.patch_size, channels=encoder.in_channels)
        self.encoder = encoder
        self.objective = objective
        self._scale = PixelScale(None, None)

    @property
    def grid(self) -> tuple[int, int]:
        """(Gh, Gw)."""
        return self.encoder.grid

    @property
    def patch_size(self) -> int:
        """P, in pixels."""
        return self.encoder.patch_size

    @property
    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Plain values that build it again, see ``rebuild_masked_model``."""

    def forward(self, images: Tensor, plan: MaskPlan, valid: Tensor | None = None) -> MaskedOutput:
        """Predict what the plan hides of images, and compare.

        Args:
            images: (B, C, H, W), standardised floats.
            plan: What is hidden.
            valid: (B, H, W) bool, which pixels are there; None where all are. The others are seen as 0, the mean, and not scored.
        """
        if valid is not None:
            images = torch.where(valid.unsqueeze(1), images, 0.0)
        return self.compare(self.predict_hidden(images, plan), images, plan, valid)

    @abstractmethod
    def predict_hidden(self, images: Tensor, plan: MaskPlan) -> Tensor:
        """Return the values (B, M, width of the objective) of what the plan hides, or of the first of it."""

    def compare(self, values: Tensor, images: Tensor, plan: MaskPlan, valid: Tensor | None = None) -> MaskedOutput:
        """Return the loss of the values (B, M, width of the objective) that were predicted, beside what it was measured on.

        Raises:
            ValueError: Pixels are missing, and the objective does not ask which.
        """
        count = values.shape[1]
        there = () if valid is None else (self.hidden_valid(valid, plan, count),)
        target = self.target(images, plan, count, *there)
        prediction = self.objective.unpack(values)
        return MaskedOutput(self.objective.loss(prediction, target, *there), prediction, target, plan)

    def target(self, images: Tensor, plan: MaskPlan, count: int | None = None, valid: Tensor | None = None) -> Tensor:
        """Return what is to be predicted of the hidden patches, or of the first ``count``, in float32 also under autocast.

        ``valid`` says which of their values are there, where some are not.
        """
        with torch.autocast(images.device.type, enabled=False):
            images = images if images.dtype == torch.float64 else images.float()
            hidden = gather_patches(patchify(images, self.patch_size), plan.masked[:, :count])
            return self.objective.target(hidden, self._pixel_scale(), *(() if valid is None else (valid,)))

    def hidden_valid(self, valid: Tensor, plan: MaskPlan, count: int | None = None) -> Tensor:
        """Return which values of the hidden patches, or of the first ``count``, are there: (B, M, P*P*C) bool.

        Raises:
            ValueError: The objective does not ask.
        """
        objective = self.objective
        asking = (objective.target, objective.loss, objective.as_patches)
        if not all("valid" in inspect.signature(part).parameters for part in asking):
            raise ValueError(
                f"these images lack pixels (NaN, no data, transparent), and objective={objective.title} does not ask which: give "
                f"its target, loss and as_patches a last argument `valid`, see Objective, or fill the pixels"
            )
        shown = valid.unsqueeze(1).expand(-1, self.encoder.in_channels, -1, -1)
        return gather_patches(patchify(shown, self.patch_size), plan.masked[:, :count])

    def as_patches(self, prediction: Tensor, hidden: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return a prediction as standardised patches (B, M, P*P*C), to look at; ``hidden`` are the true ones."""
        there = () if valid is None else (valid,)
        return self.objective.as_patches(prediction, hidden, self._pixel_scale(), *there)

    def set_grad_checkpointing(self) -> None:
        """Compute layers again on the way back, which takes less memory.

        Raises:
            ValueError: The encoder cannot.
        """
        self.encoder.set_grad_checkpointing()

    def _pixel_scale(self) -> PixelScale:
        mean, std = self.encoder.pixel_mean, self.encoder.pixel_std
        if (self._scale.mean, self._scale.std) != (mean, std):  # measured after the model was built
            self._scale = PixelScale(mean, std)
        return self._scale
