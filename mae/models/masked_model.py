"""What every pretraining objective has in common: an encoder, a plan that says what is hidden, and a loss on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from mae.masking.plan import MaskPlan
from mae.models.backbones.encoder import Encoder


@dataclass(frozen=True, eq=False)
class MaskedOutput:
    """What one pass gives: ``loss`` (scalar), ``prediction`` and ``target`` for the M hidden patches, and the ``plan``.

    Prediction and target are (B, M, P*P*C) pixels; or logits (B, M, cells*cells, 512) and labels (B, M, cells*cells) of colours.
    """

    loss: Tensor
    prediction: Tensor
    target: Tensor
    plan: MaskPlan


class MaskedModel(nn.Module, ABC):
    """A model that predicts what a plan hides of an image.

    Attributes:
        encoder: What is kept of it.
        config: Plain values that build it again.
        normalize_pixels: Whether patches are predicted by their own mean and deviation.
        predicts_colours: Whether classes of colours are predicted.
    """

    normalize_pixels: bool = False
    predicts_colours: bool = False

    def __init__(self, encoder: Encoder, config: dict[str, Any]) -> None:
        super().__init__()
        self.encoder = encoder
        self.config = config

    @property
    def grid(self) -> tuple[int, int]:
        """(Gh, Gw)."""
        return self.encoder.grid

    @property
    def patch_size(self) -> int:
        """P, in pixels."""
        return self.encoder.patch_size

    @abstractmethod
    def forward(self, images: Tensor, plan: MaskPlan) -> MaskedOutput:
        """Predict what the plan hides of standardised float images (B, C, H, W)."""

    @abstractmethod
    def as_pixels(self, prediction: Tensor, hidden: Tensor) -> Tensor:
        """Return a prediction as standardised patches (B, M, P*P*C), to look at; ``hidden`` are the true ones."""
