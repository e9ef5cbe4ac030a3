"""How long a training step takes, loading included."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
import torch

WARM_UP = 3
"""Steps that are not counted: kernels are chosen, memory is taken, workers start."""
FEWEST = 3
"""Steps that are."""


class Stopwatch(L.Callback):
    """Times optimizer steps, and stops the training after ``seconds`` of them, though not before the third.

    Attributes:
        step: Seconds of a step; 0 until the training has been stopped.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.step = 0.0
        self._began: float | None = None
        self._counted = -1

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Begin after the warm-up, and end when the time is over."""
        counted = trainer.global_step - WARM_UP
        if counted <= self._counted or self.step:  # an accumulated step has several batches, and is over after the last
            return
        self._counted = counted
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()  # a step has only been queued there
        now = time.perf_counter()
        if self._began is None:
            self._began = now
        elif counted >= FEWEST and now - self._began >= self.seconds:
            self.step = (now - self._began) / counted
            trainer.should_stop = True
