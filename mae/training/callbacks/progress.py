"""One progress bar for the whole run: images per second, share of time waiting for data, time left."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from mae.data.loading.batches import Batch

REFRESH_SECONDS = 0.5  # reading the loss synchronises with the device, so it is read no more often than this
LINE_SECONDS = 20.0  # between lines where the output is no terminal


class TrainingClock:
    """Time spent on training steps and time spent waiting for their data, in seconds, and images seen."""

    def __init__(self) -> None:
        self.waiting = 0.0
        self.working = 0.0
        self.images = 0
        self._mark: float | None = None

    def ready(self) -> None:
        """Start to wait for a batch."""
        self._mark = time.perf_counter()

    def begin(self) -> None:
        """A batch has come."""
        now = time.perf_counter()
        if self._mark is not None:
            self.waiting += now - self._mark
        self._mark = now

    def end(self, images: int) -> None:
        """The step is done; the wait for the next batch begins."""
        now = time.perf_counter()
        if self._mark is not None:
            self.working += now - self._mark
        self.images += images
        self._mark = now

    def pause(self) -> None:
        """Something else than training begins, such as validation."""
        self._mark = None

    @property
    def images_per_second(self) -> float:
        """Over all training time, waiting included, validation not."""
        return self.images / max(1e-9, self.waiting + self.working)

    @property
    def waiting_share(self) -> float:
        """Share of the training time spent waiting for data."""
        return self.waiting / max(1e-9, self.waiting + self.working)


class TrainingProgress(L.Callback):
    """Shows a bar on a terminal and a line now and then elsewhere, and keeps the clock.

    Args:
        console: Where to show it.
        quiet: Show nothing, keep the clock.
    """

    def __init__(self, console: Console, quiet: bool = False) -> None:
        self.clock = TrainingClock()
        self.console = console
        self.quiet = quiet
        self.bar: Progress | None = None
        self._shown = 0.0
        self._began: float | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open the bar, at the step of the resume."""
        self.total = int(trainer.estimated_stepping_batches)
        self.first = trainer.global_step
        self._began = None
        if self.quiet or not trainer.is_global_zero or not self.console.is_terminal:
            return
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=self.console,
            transient=True,
        )
        self.task = self.bar.add_task("starting", total=self.total, completed=self.first, status="")
        self.bar.start()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Wait for the first batch; an epoch that goes on in the middle has no such start."""
        self.clock.ready()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Stop waiting."""
        if self._began is None:  # measurements before the first step are not part of the pace
            self._began = self._shown = time.perf_counter()
        self.clock.begin()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Count, and show now and then."""
        self.clock.end(len(batch.images) * trainer.world_size)
        if self.quiet or not trainer.is_global_zero:
            return
        now = time.perf_counter()
        if now - self._shown >= (REFRESH_SECONDS if self.bar else LINE_SECONDS):
            self._shown = now
            self._show(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Validation is neither waiting nor working."""
        self.clock.pause()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Training goes on, after what follows a validation: pictures, kNN, checkpoints."""
        self.clock.pause()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Close the bar: Lightning calls no teardown after an error."""
        self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def say(self, line: str, style: str | None = None) -> None:
        """Print a line, above the bar where there is one, unless the run is quiet."""
        if not self.quiet:
            self.console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)

    def _show(self, trainer: L.Trainer) -> None:
        epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        metrics = trainer.callback_metrics
        loss = f"loss {float(metrics['train_loss']):.3f}" if "train_loss" in metrics else ""
        status = f"{loss}  {self.clock.images_per_second:,.0f} img/s  waiting {self.clock.waiting_share:.0%}"
        if self.bar is not None:
            self.bar.update(self.task, completed=trainer.global_step, description=epoch, status=status)
            return
        done = trainer.global_step - self.first
        assert self._began is not None, "an epoch has begun"
        left = (time.perf_counter() - self._began) / max(1, done) * (self.total - trainer.global_step)
        self.console.print(
            f"{epoch}  step {trainer.global_step}/{self.total}  {status}  {_duration(left)} left", highlight=False
        )


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
