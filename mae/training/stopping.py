"""Keeping what was learned: a checkpoint now and then, and one where a run is stopped in the middle of an epoch."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from mae.data.remote import UnreachableError
from mae.data.unreadable import TooManyUnreadableError

TOGETHER = 16
"""Steps between two times that the devices of a run agree whether to save: agreeing waits for them all."""


class StoppedError(Exception):
    """The run was stopped from outside, and kept what it had."""


class Keep(Checkpoint):  # a checkpoint callback comes after all others, whose state it keeps
    """Saves every few minutes, and once more where a run is interrupted (SIGINT, which is Ctrl-C, or SIGTERM).

    The loader's state is part of what is saved: a resume goes on with the very next batch. The second signal ends at once.

    Args:
        path: The checkpoint, replaced each time.
        minutes: Between two of them.
        say: Tells a person what happens.
    """

    def __init__(self, path: Path, minutes: float, say: Callable[[str], None]) -> None:
        self.path = path
        self.minutes = minutes
        self.say = say
        self.stopping = False
        self._saved_at = time.monotonic()
        self._handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen to the signals, after Lightning's own listeners are in place."""
        self._saved_at = time.monotonic()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, lambda got, frame: self._stop(trainer, got, frame))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save, where it is time or the run is to stop."""
        whole_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        last = (
            batch_idx + 1 == trainer.num_training_batches
        )  # the end of an epoch has its own checkpoint, after validation
        if last or not whole_step:
            return
        overdue = time.monotonic() - self._saved_at > 60 * self.minutes
        stopping = self.stopping
        if trainer.world_size > 1:
            if trainer.global_step % TOGETHER:
                return
            agree = trainer.strategy.reduce_boolean_decision
            stopping, overdue = agree(stopping, all=False), agree(overdue, all=False)
        if stopping or overdue:
            self._save(trainer)
        if stopping:
            raise StoppedError(
                f"stopped at step {trainer.global_step:,}, which is kept: resume=true run_dir={self.path.parent.parent} goes on"
            )

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Keep the steps that were done where the data end the run: the next batch was never begun."""
        if (
            isinstance(exception, TooManyUnreadableError | UnreachableError)
            and trainer.world_size == 1
            and trainer.training
        ):
            self._save(trainer)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Give the signals back."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def _save(self, trainer: L.Trainer) -> None:
        trainer.save_checkpoint(self.path)
        self._saved_at = time.monotonic()

    def _stop(self, trainer: L.Trainer, number: int, frame: FrameType | None) -> None:
        launcher = trainer.strategy.launcher
        if number == signal.SIGTERM and launcher is not None:
            launcher.kill(number)  # it reaches this process alone
        if self.stopping:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.stopping = True
        self.say("stopping after this step, which is kept; once more ends at once")
