"""The second stage: a classifier on an encoder, frozen or not."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from mae.checkpoints.format import describe
from mae.data.batches import Batch
from mae.data.statistics import pixel_tensors, standardize
from mae.masking.samplers import derive_seed
from mae.models.classifier import Classifier
from mae.models.encoder import Encoder
from mae.models.patches import as_pair, patch_grid
from mae.models.positions import resample_positions
from mae.training.mixing import BatchAugmentation
from mae.training.optimization import Optimization
from mae.training.predictions import Predictions
from mae.training.pretraining import LAYERS


class FinetuningModule(L.LightningModule):
    """Train a classifier; what the protocol freezes stays bit-identical.

    Args:
        model: Encoder, pooling and head; the encoder carries the pixel statistics.
        protocol: The options that the model was created with, kept in the checkpoint so that it can be built again.
        classes: Names of the K classes.
        optimization: Optimizer and schedule; None where nothing is trained.
        augmentation: Of training batches, and their loss.
        seed: What layers and augmentations draw is a function of (seed, rank, epoch, batch).
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: Classifier,
        protocol: Mapping[str, Any],
        classes: tuple[str, ...],
        *,
        optimization: Optimization | None = None,
        augmentation: BatchAugmentation | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.model = model
        self.classes = classes
        self.optimization = optimization
        self.augmentation = augmentation or BatchAugmentation(len(classes))
        self.seed = seed
        self.val_top1 = MulticlassAccuracy(len(classes), average="micro")
        self.val_loss = MeanMetric()
        self.predictions = Predictions()
        encoder = model.encoder
        assert encoder.pixel_mean is not None and encoder.pixel_std is not None, "pixels not measured"
        for name, values in zip(("mean", "std"), pixel_tensors(encoder.pixel_mean, encoder.pixel_std), strict=True):
            self.register_buffer(name, values, persistent=False)
        self.save_hyperparameters({"model": describe(encoder), "classes": list(classes), "protocol": dict(protocol)})

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Let weights that were trained at another image size fit: positions are resampled in two dimensions."""
        encoder, table = self.model.encoder, "model.encoder.vit.pos_embed"
        if isinstance(encoder, Encoder) and table in checkpoint["state_dict"]:
            stored = patch_grid(
                as_pair(checkpoint["hyper_parameters"]["model"]["encoder"]["image_size"]), encoder.patch_size
            )
            checkpoint["state_dict"][table] = resample_positions(
                checkpoint["state_dict"][table], stored, encoder.grid, encoder.position_prefix
            )

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K) of images (B, C, H, W), uint8 or float32."""
        return self.model(standardize(images, self.mean, self.std))  # type: ignore[no-any-return]

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Make drop path, Mixup and erasing functions of (seed, rank, epoch, batch): a resume repeats them."""
        seed = derive_seed(LAYERS, self.seed, self.global_rank, self.current_epoch, batch_idx)
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 - timm's Mixup draws from the global generator

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the cross-entropy of one batch."""
        assert self.optimization is not None, "built to be evaluated only"
        images, targets = self.augmentation(standardize(batch.images, self.mean, self.std), batch.labels)
        loss = self.augmentation.loss(self.model(images), targets)
        self.log("train_loss", loss)
        self.log("lr", self.optimization.last_layer_lr(self.optimizers()))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count right answers on the validation split, on which the best epoch is chosen."""
        logits = self(batch.images).float()
        self.val_top1.update(logits, batch.labels)
        self.val_loss.update(torch.nn.functional.cross_entropy(logits, batch.labels), weight=len(batch.labels))
        self.log("val_top1", self.val_top1)
        self.log("val_loss", self.val_loss)

    def on_test_start(self) -> None:
        """Forget what was collected before."""
        self.predictions.reset()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep every prediction on the split that is scored."""
        self.predictions.update(batch.indices, batch.labels, self(batch.images))

    def on_test_epoch_end(self) -> None:
        """Join the predictions of all processes: ``scored`` is (logits (N, K), labels (N,)) in the order of the split."""
        logits, labels = self.predictions.compute()
        self.scored = logits.view(-1, len(self.classes)), labels.view(-1)  # torchmetrics turns one image into a scalar

    def configure_optimizers(self) -> Any:
        """Return the optimizer and its per-step schedule."""
        assert self.optimization is not None, "built to be evaluated only"
        return self.optimization.configure(self.model)
