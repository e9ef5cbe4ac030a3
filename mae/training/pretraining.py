"""Pretraining: a masked autoencoder, or another objective, under Lightning."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torchmetrics import MeanMetric

from mae.checkpoints.format import describe
from mae.data.loading.batches import Batch
from mae.data.statistics import pixel_tensors, standardize
from mae.masking.noise import image_keys
from mae.masking.plan import MaskPlan
from mae.masking.samplers import MaskSampler
from mae.masking.seeds import LAYERS, MASKS, VALIDATION, derive_seed
from mae.models.layers.patches import patch_shares
from mae.models.masked_model import MaskedModel
from mae.training.optimization import Optimization


class PretrainingModule(L.LightningModule):
    """Hide patches, reconstruct them, learn.

    Args:
        model: What is trained; its encoder carries the pixel statistics.
        sampler: Draws the masks.
        optimization: Optimizer and schedule.
        seed: The mask of a crop is a function of (seed, epoch, image, repeat).
        repeats: Crops of each image in a training batch, side by side.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: MaskedModel,
        sampler: MaskSampler,
        optimization: Optimization,
        *,
        seed: int,
        repeats: int = 1,
    ) -> None:
        super().__init__()
        self.model = model
        self.sampler = sampler
        self.optimization = optimization
        self.seed = seed
        self.repeats = repeats
        self.val_loss = MeanMetric(nan_strategy=math.nan)  # by default what is not a number is left out of the mean
        assert model.encoder.pixel_mean is not None and model.encoder.pixel_std is not None, "pixels not measured"
        pixels = pixel_tensors(model.encoder.pixel_mean, model.encoder.pixel_std)
        for name, values in zip(("mean", "std"), pixels, strict=True):
            self.register_buffer(name, values, persistent=False)
        # Buffers follow from the config, so that DDP need not send them at every step; but for what a hybrid's BatchNorm counts.
        counted = ("running_mean", "running_var", "num_batches_tracked")
        self._ddp_params_and_buffers_to_ignore = [
            name for name, _ in self.named_buffers() if not name.endswith(counted)
        ]
        # Plain values only: the checkpoint must load with weights_only=True, and says how to build its model.
        self.save_hyperparameters({"model": describe(model), "seed": seed})

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Make what layers draw, such as drop path, a function of (seed, rank, epoch, batch): a resume repeats it."""
        torch.manual_seed(derive_seed(LAYERS, self.seed, self.global_rank, self.current_epoch, batch_idx))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss on the hidden patches of one batch."""
        images = standardize(batch.images, self.mean, self.std, batch.valid)
        keys = image_keys(derive_seed(MASKS, self.seed, self.current_epoch), batch.indices, self.repeats)
        plan = self._plan(keys, batch.valid)
        out = self.model(images, plan, batch.valid)
        self.log("train_loss", out.loss)
        self.log("lr", self.optimization.last_layer_lr(self.optimizers()))
        return out.loss  # type: ignore[no-any-return]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Score the reconstruction of fixed images behind fixed masks."""
        images = standardize(batch.images, self.mean, self.std, batch.valid)
        plan = self.validation_plan(batch.indices, batch.valid)
        out = self.model(images, plan, batch.valid)
        if batch.valid is None:
            self.val_loss.update(out.loss, weight=len(images))
        else:  # images that hide nothing are in the loss with 0, which here would make it look better
            hidden = patch_shares(batch.valid, self.model.patch_size).gather(1, plan.masked)
            scored = (hidden > 0).any(dim=1).sum()
            self.val_loss.update(out.loss * len(images) / scored.clamp(min=1), weight=scored)
        self.log("val_loss", self.val_loss)

    def validation_plan(self, index: Tensor, valid: Tensor | None = None) -> MaskPlan:
        """Return the masks of validation images, by their index in the split: the same in every run, so that losses compare."""
        return self._plan(image_keys(derive_seed(VALIDATION), index), valid)

    def _plan(self, keys: Tensor, valid: Tensor | None) -> MaskPlan:
        shares = None if valid is None else patch_shares(valid, self.model.patch_size)
        return self.sampler.of_images(keys, self.model.grid, shares)

    def configure_optimizers(self) -> Any:
        """Return the optimizer and its per-step schedule."""
        return self.optimization.configure(self.model)
