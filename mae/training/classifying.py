"""The second stage for classification: a classifier on an encoder, frozen or not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from mae.checkpoints.format import describe
from mae.data.loading.batches import Batch
from mae.data.statistics import standardize
from mae.models.classifier import Classifier
from mae.training.downstream import DownstreamModule
from mae.training.mixing import BatchAugmentation
from mae.training.optimization import Optimization
from mae.training.predictions import Predictions


class ClassificationModule(DownstreamModule):
    """Train a classifier; what the protocol freezes stays bit-identical.

    Args:
        model: Encoder, pooling and head; the encoder carries the pixel statistics.
        protocol: The options that the model was created with, kept in the checkpoint so that it can be built again.
        classes: Names of the K classes.
        optimization: Optimizer and schedule; None where nothing is trained.
        augmentation: Of training batches, and their loss.
        seed: What layers and augmentations draw is a function of (seed, rank, epoch, batch).
    """

    model: Classifier

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
        super().__init__(model, optimization, seed)
        self.classes = classes
        self.augmentation = augmentation or BatchAugmentation(len(classes))
        self.val_top1 = MulticlassAccuracy(len(classes), average="micro")
        self.val_loss = MeanMetric(nan_strategy=math.nan)  # by default what is not a number is left out of the mean
        self.predictions = Predictions()
        self.save_hyperparameters(
            {"model": describe(model.encoder), "classes": list(classes), "protocol": dict(protocol)}
        )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the cross-entropy of one batch."""
        images, targets = self.augmentation(standardize(batch.images, self.mean, self.std, batch.valid), batch.labels)
        return self.log_training(self.augmentation.loss(self.model(images), targets))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count right answers on the validation split, on which the best epoch is chosen."""
        logits = self(batch.images, batch.valid).float()
        self.val_top1.update(logits, batch.labels)
        self.val_loss.update(torch.nn.functional.cross_entropy(logits, batch.labels), weight=len(batch.labels))
        self.log("val_top1", self.val_top1)
        self.log("val_loss", self.val_loss)

    def on_test_start(self) -> None:
        """Forget what was collected before."""
        self.predictions.reset()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep every prediction on the split that is scored."""
        self.predictions.update(batch.indices, batch.labels, self(batch.images, batch.valid))

    def on_test_epoch_end(self) -> None:
        """Join the predictions of all processes: ``scored`` is (logits (N, K), labels (N,)) in the order of the split."""
        logits, labels = self.predictions.compute()
        self.scored = logits.view(-1, len(self.classes)), labels.view(-1)  # torchmetrics turns one image into a scalar
