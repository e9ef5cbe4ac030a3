"""A run whose every part is built: fitted, finished, reported."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import lightning as L
from lightning.pytorch.profilers import SimpleProfiler
from lightning.pytorch.utilities import rank_zero_only

from mae.checkpoints.format import save
from mae.data.datamodule import ImageData
from mae.models.backbones.backbone import Backbone
from mae.report.page import Figure, write_run_report
from mae.report.tables import Table
from mae.run.builders import build_loggers
from mae.run.folder import shared_with_children
from mae.run.report_content import report_content
from mae.run.setting import Setting, placement
from mae.training.callbacks.divergence import Divergence, has_finite_weights
from mae.training.callbacks.progress import TrainingProgress
from mae.training.overfitting import FirstBatch
from mae.training.summary import Rows, show_summary
from mae.training.trainer import create_trainer


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Attributes:
        results: Final numbers by plain names.
        verdicts: What they mean, in sentences.
        tables: For the report.
        figures: For the report, beside the curves.
        caption: Of the reconstructions, where there are some.
    """

    results: Mapping[str, Any]
    verdicts: Sequence[str]
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    caption: str = ""


def write_outcome(setting: Setting[Any], outcome: Outcome) -> None:
    """Write results.json and report.html."""
    setting.folder.write_json("results.json", outcome.results)
    write_run_report(
        setting.folder.path,
        outcome.results,
        outcome.verdicts,
        [str(choice) for choice in setting.choices.made],
        tables=outcome.tables,
        figures=outcome.figures,
        **report_content(setting.folder.path, setting.config, outcome.caption),
    )


def say_outcome(setting: Setting[Any], outcome: Outcome) -> None:
    """Say what came of a run, and where it is written."""
    setting.say(*outcome.verdicts, f"report   {setting.folder.path / 'report.html'}")


def show_start(setting: Setting[Any], trainer: L.Trainer, title: str, rows: Rows) -> None:
    """Print what will run, and what was chosen; the first process does."""
    kind = type(trainer.accelerator).__name__.removesuffix("Accelerator")
    rows = [*rows, ("device", f"{trainer.world_size} x {kind}, {setting.config.trainer.precision}")]
    if setting.config.resume:
        step = setting.folder.resume_step()
        rows.append(
            ("resume", "there is nothing to resume: starts anew" if step is None else f"goes on from step {step:,}")
        )
    if trainer.is_global_zero and not setting.quiet:
        show_summary(setting.console, f"{title} in {setting.folder.path}", rows, setting.choices.made)


@dataclass
class Run:
    """A run whose every part is built.

    Attributes:
        setting: RunConfig, folder and machine.
        data: Batches.
        module: What is trained.
        trainer: Lightning's.
        progress: Its clock says how fast the training was.
    """

    setting: Setting[Any]
    data: ImageData
    module: L.LightningModule
    trainer: L.Trainer
    progress: TrainingProgress

    @classmethod
    def build_trainer(
        cls, setting: Setting[Any], total_steps: int, monitor: str, mode: str, callbacks: Sequence[L.Callback] = ()
    ) -> tuple[L.Trainer, TrainingProgress]:
        """Return the trainer, and the progress that it shows."""
        config, debug = setting.config, setting.config.debug
        progress = TrainingProgress(setting.console, quiet=setting.quiet)
        trainer = create_trainer(
            placement(config.trainer),
            precision=config.trainer.precision,
            accumulate=config.trainer.accumulate,
            validate_every=config.trainer.validate_every,
            save_minutes=config.trainer.save_minutes,
            folder=setting.folder.path,
            epochs=config.epochs,
            total_steps=total_steps,
            clip_norm=config.optim.clip_norm,
            monitor=monitor,
            mode=mode,
            loggers=build_loggers(setting),
            callbacks=[progress, *callbacks, Divergence()],
            say=partial(progress.say, style="bold"),
            limit_steps=setting.limit_steps,
            limit_validation=debug.steps is not None,
            profiler=SimpleProfiler() if debug.profiler else None,
        )
        return trainer, progress

    @property
    def divergence(self) -> Divergence:
        """Knows whether the training has diverged."""
        callbacks: list[L.Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        (found,) = (callback for callback in callbacks if isinstance(callback, Divergence))
        return found

    def fit(self) -> None:
        """Train, from the last checkpoint where the run goes on, and keep the end as ``last.ckpt``.

        A run that diverges ends early, see ``divergence``: its checkpoints stay those of before.
        """
        folder = self.setting.folder
        folder.start(self.setting.config.plain())
        self._began = time.perf_counter()
        with shared_with_children(folder):
            batches: Any = self.data
            if self.setting.config.debug.overfit:
                batches = FirstBatch(self.data)
            self.trainer.fit(self.module, datamodule=batches, ckpt_path=folder.last_checkpoint, weights_only=True)
        if self.divergence.sentence is None:
            self.trainer.save_checkpoint(folder.path / "checkpoints" / "last.ckpt")
        if self.setting.config.debug.profiler:
            self._write_profile()
        self.trainer.loggers = []  # what follows belongs to results.json, not to the curves

    def return_to_device(self) -> None:
        """Move the module back to where it was trained: Lightning leaves it on the CPU when its trainer is done."""
        self.module.to(self.trainer.strategy.root_device)

    @rank_zero_only
    def _write_profile(self) -> None:
        path = self.setting.folder.path / "profile.txt"
        path.write_text(self.trainer.profiler.summary(), encoding="utf-8")  # type: ignore[attr-defined]
        self.say(f"profile  {path}")

    def write(self, encoder: Backbone, outcome: Outcome) -> Outcome:
        """Write the encoder, if its weights are numbers, results.json and report.html.

        Returns:
            The outcome with what every run has to tell: its speed, and the images that it could not read.
        """
        folder, clock, verdicts = self.setting.folder, self.progress.clock, outcome.verdicts
        results = {**folder.earlier_results(), **outcome.results}
        if clock.images:  # a resume of a finished run trains nothing, and keeps what was measured
            results["images_per_second"] = clock.images_per_second
            results["waiting_share"] = clock.waiting_share
            results["seconds"] = time.perf_counter() - self._began
        unreadable = self.data.unreadable
        results["unreadable_images"] = count = unreadable.count()
        if count:
            verdicts = [*verdicts, f"{count:,} images cannot be read, listed in {unreadable.path}."]
        if has_finite_weights(encoder):
            save(encoder, folder.path / "encoder")
        outcome = replace(outcome, results=results, verdicts=verdicts)
        write_outcome(self.setting, outcome)
        return outcome

    def tell(self, encoder: Backbone, outcome: Outcome) -> None:
        """Say what came of the run, and where it is written."""
        say_outcome(self.setting, outcome)
        if has_finite_weights(encoder):
            self.say(f"encoder  {self.setting.folder.path / 'encoder'}")

    def say(self, *lines: str, style: str | None = None) -> None:
        """Print lines, unless the run is quiet."""
        self.setting.say(*lines, style=style)
