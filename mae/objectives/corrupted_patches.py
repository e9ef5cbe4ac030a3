"""Masked patch prediction: what corrupted patches looked like (Dosovitskiy et al. 2020, arXiv 2010.11929, appendix B.1.2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from mae.objectives.colours import COLOURS, colour_labels, colour_loss, colour_patches, whole_cells
from mae.objectives.masked_mse import masked_mse
from mae.objectives.objective import Objective, PixelScale, Trivial

TARGETS = {"mean_colour": 1, "colours_4x4": 4, "pixels": 0}
"""Cells along a side of a patch whose colours are predicted; 0 for the pixels themselves."""


class CorruptedPatches(Objective):
    """Patch embeddings are corrupted, and what the patches looked like is predicted from all of them.

    Args:
        target: ``mean_colour`` (512 classes), ``colours_4x4`` (16 times 512) or ``pixels`` (regression of the patch).

    Raises:
        ValueError: The target is unknown.
    """

    masking = "corruption"
    hides = "embeddings"

    def __init__(self, target: str = "mean_colour") -> None:
        if target not in TARGETS:
            raise ValueError(f"objective.target={target!r} is unknown: choose one of {', '.join(TARGETS)}")
        self.asked = target
        self.cells = TARGETS[target]

    def width(self, patch_size: int, channels: int) -> int:
        """Return 512 for each colour, or P*P*C."""
        return self.cells**2 * COLOURS if self.cells else patch_size**2 * channels

    def unpack(self, values: Tensor) -> Tensor:
        """Return logits (B, M, cells*cells, 512), or pixels (B, M, P*P*C)."""
        return values.reshape(*values.shape[:-1], -1, COLOURS) if self.cells else values

    def target(self, hidden: Tensor, scale: PixelScale, valid: Tensor | None = None) -> Tensor:
        """Return colour labels (B, M, cells*cells) int64, or the patches; the colour of what is not valid is not scored."""
        return colour_labels(scale.unit(hidden), self.cells) if self.cells else hidden

    def loss(self, prediction: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return the cross-entropy of the colours of cells that are wholly valid, or the mean squared error of pixels."""
        if not self.cells:
            return masked_mse(prediction, target, valid)
        return colour_loss(prediction, target, None if valid is None else whole_cells(valid, self.cells))

    def as_patches(self, prediction: Tensor, hidden: Tensor, scale: PixelScale, valid: Tensor | None = None) -> Tensor:
        """Return a prediction as standardised patches; a colour is shown by the middle of its bin."""
        if not self.cells:
            return prediction
        side = round((hidden.shape[-1] / 3) ** 0.5)
        return scale.standardize(colour_patches(prediction.argmax(dim=-1), side).to(hidden.dtype))

    def check(self, *, patch_size: int, channels: int, bits: int = 8) -> None:
        """Raise a ValueError where patches hold no such colours."""
        if not self.cells:
            return
        if bits > 8:
            raise ValueError(
                f"objective.target={self.asked} counts colours of 8 bits, and data.bits={bits}: data.bits=8 reads the images so, "
                f"objective.target=pixels takes them as they are"
            )
        if channels != 3:
            raise ValueError(
                f"objective.target={self.asked} predicts colours, and data.channels={channels}: data.channels=3 shows grey images "
                f"as colour ones, objective.target=pixels takes any channels"
            )
        if patch_size % self.cells:
            raise ValueError(
                f"objective.target={self.asked} cuts patches into 4x4, and model.patch_size={patch_size}: choose a multiple of 4, "
                f"or objective.target=mean_colour"
            )

    def figures(self, patches: Iterable[Tensor]) -> dict[str, float]:
        """Return the entropy of the colours, in nats: the cross-entropy of knowing how frequent each one is."""
        if not self.cells:
            return {}
        counts = torch.zeros(COLOURS, dtype=torch.float64)
        for batch in patches:
            counts += colour_labels(batch, self.cells).flatten().bincount(minlength=COLOURS).cpu()
        if not counts.any():
            return {}  # no patch is whole
        shares = counts[counts > 0] / counts.sum()
        return {"label_entropy": float(-(shares * shares.log()).sum())}

    def trivial(self, figures: Mapping[str, Any]) -> Trivial | None:
        """Return the entropy of the colours, where it was measured."""
        if "label_entropy" not in figures:
            return None
        return Trivial(figures["label_entropy"], "knowing how frequent each colour is")

    @property
    def what(self) -> str:
        """What the loss is measured on."""
        return "colours of corrupted patches" if self.cells else "hidden patches"

    @property
    def caption(self) -> str:
        """What a picture shows."""
        return (
            "Validation images: what went in, what the encoder saw (grey is the mask embedding, and some patches stand in for "
            "others), what it predicted of corrupted patches, and the rest beside it."
        )
