"""Every prediction on a split once, from all processes."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class Predictions(Metric):
    """Collects logits by the image's index in its split; processes hold disjoint shares, and ``compute`` joins them."""

    full_state_update = False
    indices: list[Tensor]
    labels: list[Tensor]
    logits: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("indices", "labels", "logits"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, indices: Tensor, labels: Tensor, logits: Tensor) -> None:
        """Add a batch: (B,), (B,) and (B, K)."""
        self.indices.append(indices)
        self.labels.append(labels)
        self.logits.append(logits.float())

    def compute(self) -> tuple[Tensor, Tensor]:
        """Return logits (N, K) and labels (N,) on the CPU, in the order of the split.

        Raises:
            RuntimeError: An image was counted twice, or left out.
        """
        indices = dim_zero_cat(self.indices)
        order = indices.argsort()
        if not torch.equal(indices[order], torch.arange(len(indices), device=indices.device)):
            raise RuntimeError(f"{len(indices)} predictions are not one for each image of the split")
        return dim_zero_cat(self.logits)[order].cpu(), dim_zero_cat(self.labels)[order].cpu()
