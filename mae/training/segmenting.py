"""The second stage for segmentation: a class for each pixel."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MeanMetric

from mae.checkpoints.format import describe
from mae.data.loading.batches import Batch
from mae.data.segmentation.masks import IGNORE
from mae.data.statistics import standardize
from mae.evaluation.segmentation_scores import count_confusions, image_counts, measure_segmentation
from mae.models.segmenter import Segmenter
from mae.training.downstream import DownstreamModule
from mae.training.optimization import Optimization
from mae.training.predictions import Predictions


class SegmentationModule(DownstreamModule):
    """Train a segmenter on images and masks of its size.

    Args:
        model: Encoder, neck and head; the encoder carries the pixel statistics.
        task: The options that the model was created with, kept in the checkpoint so that it can be built again.
        classes: Names of the K classes.
        optimization: Optimizer and schedule; None where nothing is trained.
        seed: What layers draw is a function of (seed, rank, epoch, batch).
    """

    model: Segmenter

    def __init__(
        self,
        model: Segmenter,
        task: Mapping[str, Any],
        classes: tuple[str, ...],
        *,
        optimization: Optimization | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(model, optimization, seed)
        self.classes = classes
        self.val_loss = MeanMetric(nan_strategy=math.nan)  # by default what is not a number is left out of the mean
        self.val_confusion, self.confusion = count_confusions(len(classes)), count_confusions(len(classes))
        self.counts = Predictions()  # float32 counts exactly, up to 16 million pixels of a class in an image
        self.save_hyperparameters({"model": describe(model.encoder), "classes": list(classes), "task": dict(task)})

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the cross-entropy over the labelled pixels of one batch."""
        return self.log_training(
            self._loss(self.model(standardize(batch.images, self.mean, self.std, batch.valid)), batch.labels)
        )

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count pixels of the validation split, on which the best epoch is chosen."""
        logits = self(batch.images, batch.valid)
        self.val_confusion.update(logits, batch.labels)
        self.val_loss.update(self._loss(logits, batch.labels), weight=(batch.labels != IGNORE).sum())
        self.log("val_loss", self.val_loss)

    def on_validation_epoch_end(self) -> None:
        """Log the mean IoU and the pixel accuracy, over the pixels of all images and processes.

        Raises:
            MaskError: No pixel of the whole split has a label.
        """
        confusion = self.val_confusion.compute()
        self.val_confusion.reset()
        if self.trainer.sanity_checking and not confusion.any():
            return  # it sees a batch or two, which may well hold no label
        scores = measure_segmentation(confusion)
        # The same on every process; their mean is what Lightning asks for.
        self.log_dict({"val_miou": scores.mean_iou, "val_pixel_accuracy": scores.pixel_accuracy}, sync_dist=True)

    def on_test_start(self) -> None:
        """Forget what was counted before."""
        self.confusion.reset()
        self.counts.reset()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Count pixels of the split that is scored, over all images and in each."""
        predicted = self(batch.images, batch.valid).argmax(dim=1)
        self.confusion.update(predicted, batch.labels)
        self.counts.update(batch.indices, batch.indices, image_counts(predicted, batch.labels, len(self.classes)))

    def on_test_epoch_end(self) -> None:
        """Join the counts of all processes: ``scored`` (K, K), rows true, columns predicted, and ``each`` (N, 3 * K).

        The latter are those of ``image_counts``, in the order of the split.
        """
        self.scored = self.confusion.compute().cpu()
        self.each, _ = self.counts.compute()

    @staticmethod
    def _loss(logits: Tensor, masks: Tensor) -> Tensor:
        labelled = (masks != IGNORE).sum().clamp(min=1)  # a crop may hold no labelled pixel
        return F.cross_entropy(logits.float(), masks.long(), ignore_index=IGNORE, reduction="sum") / labelled
