"""The second stage: a classifier on an encoder, frozen or not."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy

from mae.checkpoints.format import describe
from mae.data.datamodule import Batch
from mae.data.statistics import standardize
from mae.masking.samplers import derive_seed
from mae.models.classifier import Classifier
from mae.training.optimization import Optimization
from mae.training.pretraining import LAYERS


class FinetuningModule(L.LightningModule):
    """Train a classifier; a frozen encoder stays bit-identical.

    Args:
        model: Encoder, pooling and head; the encoder carries the pixel statistics.
        optimization: Optimizer and schedule.
        classes: Names of the K classes.
        label_smoothing: Share of the target that is spread over all classes.
        seed: Drop path is a function of (seed, rank, epoch).
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: Classifier,
        optimization: Optimization,
        *,
        classes: tuple[str, ...],
        label_smoothing: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.model = model
        self.optimization = optimization
        self.label_smoothing = label_smoothing
        self.seed = seed
        self.val_top1 = MulticlassAccuracy(len(classes), average="micro")
        self.test_top1 = MulticlassAccuracy(len(classes), average="micro")
        encoder = model.encoder
        assert encoder.pixel_mean is not None and encoder.pixel_std is not None, "pixels not measured"
        self.register_buffer("mean", torch.tensor(encoder.pixel_mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(encoder.pixel_std).view(-1, 1, 1), persistent=False)
        self.save_hyperparameters({"model": describe(encoder), "classes": list(classes), "pool": model.pool})

    def on_train_epoch_start(self) -> None:
        """Make what layers draw, such as drop path, a function of (seed, rank, epoch): a resume repeats it."""
        torch.manual_seed(derive_seed(LAYERS, self.seed, self.global_rank, self.current_epoch))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the cross-entropy of one batch."""
        logits = self.model(standardize(batch.images, self.mean, self.std))
        loss = F.cross_entropy(logits.float(), batch.labels, label_smoothing=self.label_smoothing)
        self.log("train_loss", loss)
        self.log("lr", self.optimization.last_layer_lr(self.optimizers()))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count right answers on the validation split, on which the best epoch is chosen."""
        self.val_top1.update(self.model(standardize(batch.images, self.mean, self.std)), batch.labels)
        self.log("val_top1", self.val_top1)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Count right answers on the test split, which is read once."""
        self.test_top1.update(self.model(standardize(batch.images, self.mean, self.std)), batch.labels)
        self.log("test_top1", self.test_top1)

    def configure_optimizers(self) -> Any:
        """Return the optimizer and its per-step schedule."""
        return self.optimization.configure(self.model)
