"""Keeping what was learned: a checkpoint now and then, and one where a run is stopped in the middle of an epoch."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint

from mae.data.loading.unreadable import TooManyUnreadableError
from mae.data.reading.decode import UnreadableImageError
from mae.data.streaming.remote import UnreachableError
from mae.evaluation.alarm_rules import DIVERGED_REMEDY
from mae.training.callbacks.divergence import has_finite_weights

TOGETHER = 16
"""Steps between two times that the devices of a run agree whether to save: agreeing waits for them all."""


class StoppedError(Exception):
    """The run was stopped from outside, and kept what it had."""


class Best(ModelCheckpoint):
    """Writes ``best.ckpt``, of weights that are numbers.

    Args:
        folder: Of the checkpoints.
        monitor: Metric that decides.
        mode: ``min`` or ``max``.
    """

    def __init__(self, folder: Path, monitor: str, mode: str) -> None:
        super().__init__(
            folder, "best", monitor=monitor, mode=mode, enable_version_counter=False, auto_insert_metric_name=False
        )

    @property
    def state_key(self) -> str:
        """Lightning's, under which runs of earlier versions keep their best score."""
        return super().state_key.replace(type(self).__name__, ModelCheckpoint.__name__, 1)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save where it is better."""
        if has_finite_weights(pl_module):
            super().on_validation_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save where it is better."""
        if has_finite_weights(pl_module):
            super().on_train_epoch_end(trainer, pl_module)


class Start(L.Callback):
    """Writes ``start.ckpt``, the weights before the first step, where these may be the best of a run.

    Args:
        folder: Of the checkpoints.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "start.ckpt"

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save, unless the run goes on."""
        if trainer.global_step == 0:
            trainer.save_checkpoint(self.path, weights_only=True)


class Keep(ModelCheckpoint):
    """Writes ``last.ckpt``: after epochs, every few minutes, and where a run is interrupted (SIGINT, which is Ctrl-C, or SIGTERM).

    Only weights that are numbers are written. The loader's state is part of what is saved: a resume goes on with the very next
    batch. The second signal ends at once.

    Args:
        folder: Of the checkpoints.
        every_epochs: Epochs between two checkpoints.
        minutes: Between two checkpoints within epochs.
        say: Tells a person what happens.
    """

    def __init__(self, folder: Path, every_epochs: int, minutes: float, say: Callable[[str], None]) -> None:
        super().__init__(
            folder, "last", every_n_epochs=every_epochs, save_on_train_epoch_end=True, enable_version_counter=False
        )
        self.path = folder / "last.ckpt"
        self.minutes = minutes
        self.say = say
        self.stopping = False
        self._saved_at = time.monotonic()
        self._agreed_at = 0
        self._process = os.getpid()
        self._handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen to the signals, after Lightning's own listeners are in place."""
        super().on_train_start(trainer, pl_module)
        self._saved_at, self._agreed_at, self._process = time.monotonic(), trainer.global_step, os.getpid()
        self._launcher = trainer.strategy.launcher
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._heard)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save, where it is time or the run is to stop."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        # After the last step of an epoch there is validation: a checkpoint before it would lose it.
        if not self._between_steps(trainer) or batch_idx + 1 == trainer.num_training_batches:
            return
        if trainer.world_size == 1 or trainer.global_step - self._agreed_at >= TOGETHER:
            self._save_or_stop(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save, after the best checkpoint has been decided; stop here where the epoch was to be the last."""
        if has_finite_weights(pl_module):
            super().on_train_epoch_end(trainer, pl_module)
        self._save_or_stop(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Give the signals back."""
        super().on_train_end(trainer, pl_module)
        self._give_back()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Keep the steps that were done where the data end the run: the next batch was never begun."""
        by_data = isinstance(exception, TooManyUnreadableError | UnreachableError | UnreadableImageError)
        if by_data and trainer.world_size == 1 and trainer.training and self._between_steps(trainer):
            self._save(trainer)
        self._give_back()

    def _between_steps(self, trainer: L.Trainer) -> bool:
        """Whether no gradient of the batches so far waits for others."""
        return (trainer.fit_loop.batch_idx + 1) % trainer.accumulate_grad_batches == 0

    def _save_or_stop(self, trainer: L.Trainer) -> None:
        overdue = time.monotonic() - self._saved_at > 60 * self.minutes
        stopping = self.stopping
        if trainer.world_size > 1:
            self._agreed_at = trainer.global_step
            agree = trainer.strategy.reduce_boolean_decision
            stopping, overdue = agree(stopping, all=False), agree(overdue, all=False)
        if not (stopping or overdue):
            return
        kept = self._save(trainer)
        if stopping:
            rest = (
                f"which is kept: resume=true run_dir={self.path.parent.parent} goes on"
                if kept
                else f"whose weights are not numbers, and not kept: training diverged. {DIVERGED_REMEDY}"
            )
            raise StoppedError(f"stopped at step {trainer.global_step:,}, {rest}")

    def _save(self, trainer: L.Trainer) -> bool:
        """Write ``last.ckpt``, if the weights are numbers; return whether they are."""
        finite = has_finite_weights(trainer.lightning_module)
        if finite:
            trainer.save_checkpoint(self.path)
        self._saved_at = time.monotonic()
        return finite

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a forked worker: the first process decides
            return
        if number == signal.SIGTERM and self._launcher is not None:
            self._launcher.kill(number)  # it reaches this process alone
        if self.stopping:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.stopping = True
        self.say("stopping after this step, and after the validation that may follow it; once more ends at once")

    def _give_back(self) -> None:
        for number, handler in self._handlers.items():
            if signal.getsignal(number) == self._heard:  # else Lightning has given it back already
                signal.signal(number, handler)
        self._handlers.clear()
