"""Divergence: a run whose loss is no number is ended, in either stage, and what it had learned before is kept."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from mae.evaluation import alarm_rules as rules

CHECK_STEPS = 50
"""Steps between two looks at the loss: reading it waits for the device."""


class DivergedError(Exception):
    """The loss became no number, and the run was ended; checkpoints are of before."""


def has_finite_weights(module: nn.Module) -> bool:
    """Whether every parameter is a number, by one wait for the device: no checkpoint is written of others."""
    finite = [parameter.detach().isfinite().all() for parameter in module.parameters()]
    return not finite or bool(torch.stack(finite).all())


class Divergence(L.Callback):
    """Reads the loss every 50 steps, and the validation loss, and stops a run where they are no numbers.

    Attributes:
        sentence: What a person is to be told as the run ends; None as long as all is well.
    """

    def __init__(self) -> None:
        self.sentence: str | None = None
        self._loss: Tensor | None = None
        self._checked = -1
        self._suspect = False

    def check(self) -> None:
        """Raise where the run has diverged: called when what is of use has been written.

        Raises:
            DivergedError: Its message says at which step, and what to change.
        """
        if self.sentence is not None:
            raise DivergedError(self.sentence)

    # Reading the loss waits for the device. At the start of a step the clock takes that for work, which it is.
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Judge the loss every 50 steps, the same on every rank."""
        step = trainer.global_step
        if self._loss is None or step == self._checked or (step % CHECK_STEPS and not self._suspect):
            return
        self._checked = step
        lost = trainer.strategy.reduce_boolean_decision(not math.isfinite(float(self._loss)), all=False)
        # One such step is not the end where gradients are scaled (fp16): the scaler skips it. Two in a row are.
        if lost and self._suspect:
            self._stop(trainer)
        self._suspect = lost

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the loss, on its device."""
        self._loss = outputs["loss"]

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Judge the validation loss."""
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        loss = trainer.callback_metrics.get("val_loss")
        if loss is not None and not math.isfinite(float(loss)):
            self._stop(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Judge the weights that the last steps left: they may have come after the last validation."""
        if not has_finite_weights(pl_module):
            self._stop(trainer)

    def _stop(self, trainer: L.Trainer) -> None:
        trainer.should_stop = True
        if self.sentence is None:
            self.sentence = rules.not_a_number(trainer.global_step)
