"""What every second stage shares under Lightning: pixels are standardised, chance is seeded, the optimizer is the config's."""

from __future__ import annotations

import random
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from mae.data.loading.batches import Batch
from mae.data.statistics import pixel_tensors, standardize
from mae.masking.seeds import LAYERS, derive_seed
from mae.models.classifier import Classifier
from mae.models.layers.patches import as_pair
from mae.models.segmenter import Segmenter
from mae.training.optimization import Optimization


class DownstreamModule(L.LightningModule):
    """A model on an encoder.

    Args:
        model: What is trained; its encoder carries the pixel statistics.
        optimization: Optimizer and schedule; None where nothing is trained.
        seed: What layers and augmentations draw is a function of (seed, rank, epoch, batch).
    """

    model: Classifier | Segmenter
    classes: tuple[str, ...]
    mean: Tensor
    std: Tensor

    def __init__(self, model: Classifier | Segmenter, optimization: Optimization | None, seed: int) -> None:
        super().__init__()
        self.model = model
        self.optimization = optimization
        self.seed = seed
        encoder = model.encoder
        assert encoder.pixel_mean is not None and encoder.pixel_std is not None, "pixels not measured"
        for name, values in zip(("mean", "std"), pixel_tensors(encoder.pixel_mean, encoder.pixel_std), strict=True):
            self.register_buffer(name, values, persistent=False)

    def forward(self, images: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return what the model says of images (B, C, H, W), uint8 or float32; ``valid`` is a batch's."""
        return self.model(standardize(images, self.mean, self.std, valid))  # type: ignore[no-any-return]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Let weights that were trained at another image size fit: positions are resampled in two dimensions."""
        state, start = checkpoint["state_dict"], "model.encoder."
        trained_at = as_pair(checkpoint["hyper_parameters"]["model"]["encoder"]["image_size"])
        weights = {key.removeprefix(start): value for key, value in state.items() if key.startswith(start)}
        fitting = self.model.encoder.fit_weights(weights, trained_at)
        state.update({start + key: value for key, value in fitting.items()})

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Make drop path, Mixup and erasing functions of (seed, rank, epoch, batch): a resume repeats them."""
        seed = derive_seed(LAYERS, self.seed, self.global_rank, self.current_epoch, batch_idx)
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 - timm's Mixup draws from the global generator

    def log_training(self, loss: Tensor) -> Tensor:
        """Log the loss of a training batch and the learning rate; return the loss."""
        assert self.optimization is not None, "built to be evaluated only"
        self.log("train_loss", loss)
        self.log("lr", self.optimization.last_layer_lr(self.optimizers()))
        return loss

    def configure_optimizers(self) -> Any:
        """Return the optimizer and its per-step schedule."""
        assert self.optimization is not None, "built to be evaluated only"
        return self.optimization.configure(self.model)
