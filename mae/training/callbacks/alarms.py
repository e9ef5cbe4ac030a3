"""Alarms: what should worry a person, said at once, each once."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn

from mae.evaluation import alarm_rules as rules
from mae.evaluation.verdict import MEASURES
from mae.training.callbacks.measurements import Measurements
from mae.training.callbacks.progress import TrainingProgress
from mae.training.optimization import Optimization
from mae.training.pretraining import PretrainingModule

CHECK_STEPS = 50
"""Steps between two looks at the clock."""


class Alarms(L.Callback):
    """Asks the rules as training goes on, and prints what they say; ``Divergence`` ends a run whose loss is not a number.

    Args:
        measurements: Its figures are judged, right after they were measured.
        optimization: Its steps are judged.
        workers: ``data.num_workers``, for the remedy.
    """

    def __init__(self, measurements: Measurements, optimization: Optimization, *, workers: int) -> None:
        self.measurements = measurements
        self.optimization = optimization
        self.workers = workers
        self.progress: TrainingProgress
        self._raised: dict[str, str] = {}
        self._checked = 0

    @property
    def sentences(self) -> list[str]:
        """What was raised, in order."""
        return list(self._raised.values())

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Judge what is known before the first step."""
        assert isinstance(pl_module, PretrainingModule)
        # It knows the time spent waiting for data, and prints above its bar.
        callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        (self.progress,) = (callback for callback in callbacks if isinstance(callback, TrainingProgress))
        optimization = self.optimization
        self._raise(trainer, "warmup", rules.warmup_too_long(optimization.warmup_steps, optimization.total_steps))
        self._raise(trainer, "short", rules.too_short(optimization.total_steps))
        self._raise(trainer, "flat", pl_module.model.objective.concern(self.measurements.patches))

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Judge the clock every 50 steps."""
        step = trainer.global_step
        if step == self._checked or step % CHECK_STEPS:
            return
        self._checked = step
        clock, steps = self.progress.clock, step - self.progress.first
        seconds = clock.waiting + clock.working
        self._raise(trainer, "waiting", rules.waits_for_data(clock.waiting_share, steps, seconds, self.workers))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Judge the validation loss, and the measurements, where there are new ones."""
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        assert isinstance(pl_module, PretrainingModule)
        loss = float(trainer.callback_metrics["val_loss"])
        if not math.isfinite(loss):  # the run ends, and nothing else is worth saying
            return
        now = rules.Moment(trainer.global_step, self.optimization.total_steps)
        measurements = self.measurements
        trivial = pl_module.model.objective.trivial(measurements.patches)
        if trivial is not None:
            self._raise(trainer, "loss", rules.learns_nothing(loss, trivial, now))
        if measurements.step != trainer.global_step:  # old figures say nothing of this part of the run
            return
        latest = measurements.latest.figures
        if "rankme" in latest:
            self._raise(trainer, "rank", rules.rank_collapsed(latest["rankme"], measurements.possible_rank, now))
        if measurements.decided:
            name, difference = measurements.decided
            self._raise(trainer, "untrained", rules.below_untrained(MEASURES[name], difference, now))

    def state_dict(self) -> dict[str, Any]:
        """Return what was raised, so that a resume does not raise it again."""
        return {"raised": self._raised}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what was raised."""
        self._raised = state_dict["raised"]

    def _raise(self, trainer: L.Trainer, name: str, sentence: str | None) -> None:
        if sentence is None or name in self._raised:
            return
        self._raised[name] = sentence
        if trainer.is_global_zero:
            self.progress.say(sentence, style="bold yellow")
