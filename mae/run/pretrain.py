"""The first stage: prepare a pretraining run, run it, report it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mae.config.choosing.images import choose_flip, choose_loading
from mae.config.choosing.model import choose_images_and_model
from mae.config.choosing.pretraining import choose_batch, choose_length
from mae.config.composing import load_preset
from mae.config.schema.roots import PretrainConfig
from mae.data.inspection import inspect_images
from mae.data.open_splits import open_splits
from mae.evaluation.verdict import pretraining_verdicts
from mae.models.cost import parameters
from mae.run.builders import build_data, build_optimization
from mae.run.pace import check_length, length_rows, time_steps
from mae.run.pretrain_parts import (
    Observers,
    build_model,
    build_observers,
    build_sampler,
    check_backbone,
    choose_measured,
    count_costs,
)
from mae.run.run import Outcome, Run, show_start
from mae.run.setting import open_setting
from mae.training.devices import prepare_model
from mae.training.pretraining import PretrainingModule
from mae.training.summary import model_rows, optimization_rows


def prepare(config: PretrainConfig, overrides: Sequence[str] = ()) -> Pretraining:
    """Check everything and build every part, before any work starts.

    Args:
        config: The composed config; null values are chosen here.
        overrides: What the user gave, which a resume checks against the run.

    Raises:
        ValueError: A value is wrong, or things do not fit each other.
        FileNotFoundError: A folder or checkpoint does not exist.
        ImportError: An extra is needed and not installed.
    """
    began = time.perf_counter()
    check_length(config)
    setting = open_setting(config, "pretrain", overrides)
    config, choices = setting.config, setting.choices
    check_backbone(config)

    splits = open_splits(**config.data.model_dump(), run_dir=setting.folder.path)
    look = inspect_images(splits.train)
    choose_images_and_model(choices, look, setting.machine, load_preset)
    choose_loading(choices, look, setting.machine, setting.devices)
    choose_flip(choices, look, splits.train)

    model = build_model(config)
    sampler = build_sampler(config, model)
    machine = setting.machine
    cost, whole = count_costs(model, sampler)
    choose_batch(choices, look.count, machine, setting.shares, cost=cost)
    data = build_data(setting, splits, model.encoder)
    options = config.trainer
    prepare_model(
        model,
        accelerator=options.accelerator,
        compile=options.compile,
        grad_checkpointing=options.grad_checkpointing,
    )
    timed = config.minutes is not None and config.epochs is None
    pace = time_steps(setting, data, model, sampler, began) if timed else None
    choose_length(choices, look.count, machine, cost=cost, pace=pace)
    optimization = build_optimization(setting, model.encoder, data.steps_per_epoch)
    measuring = choose_measured(setting, data, model.encoder.width, cost, whole)
    module = PretrainingModule(model, sampler, optimization, seed=config.seed, repeats=data.repeats)
    observers = build_observers(setting, data, measuring, optimization)
    trainer, progress = Run.build_trainer(setting, optimization.total_steps, "val_loss", "min", observers.callbacks)

    show_start(
        setting,
        trainer,
        "Pretraining",
        [
            ("data", f"{look}; validation: {len(splits.val):,}, {splits.origin}"),
            *model_rows(model.encoder, model),
            ("masking", sampler.describe(model.grid)),
            *optimization_rows(optimization, model, config.optim.base_lr, config.batch_size, setting.micro_batch),
            *length_rows(config, pace),
        ],
    )
    return Pretraining(setting, data, module, trainer, progress, observers)


@dataclass
class Pretraining(Run):
    """A pretraining run, ready to go."""

    module: PretrainingModule
    observers: Observers

    def run(self) -> Mapping[str, Any]:
        """Train, measure, and write the encoder, results.json and report.html; return the results.

        Raises:
            DivergedError: The loss became no number; the report says so, too.
        """
        fresh = self.setting.folder.last_checkpoint is None
        if fresh and self.observers.measurements.any and self.trainer.is_global_zero:
            self.say("measuring the encoder before training", style="dim")
        self.fit()
        (scores,) = self.trainer.validate(self.module, datamodule=self.data, verbose=False)
        results = self._report(scores["val_loss"]) if self.trainer.is_global_zero else {}
        self.divergence.check()
        return results

    def _report(self, val_loss: float) -> Mapping[str, Any]:
        """Measure what was trained, write it, and return it."""
        config, model, observers = self.setting.config, self.module.model, self.observers
        self.return_to_device()
        if config.callbacks.pictures:
            observers.pictures.draw(self.module, self.setting.folder.path / "pictures" / "reconstructions.png")
        diverged = self.divergence.sentence
        results = {
            "stage": "pretrain",
            "val_loss": val_loss,
            "epochs": config.epochs,
            "steps": self.trainer.global_step,
            "images_seen": self.trainer.global_step * config.batch_size,
            "parameters": parameters(model),
            "objective": model.objective.title,
            "normalize_pixels": model.objective.normalize,
            **self._measured(),
            "alarms": [*observers.alarms.sentences, *([diverged] if diverged else [])],
        }
        self._fit_whitening()
        objective = model.objective
        found = Outcome(results, pretraining_verdicts(results, objective), caption=objective.caption)
        written = self.write(model.encoder, found)
        self.tell(model.encoder, written)
        return written.results

    def _measured(self) -> dict[str, Any]:
        """Return the figures of the trained encoder, of the same one before training, and of raw pixels."""
        measurements = self.observers.measurements
        if measurements.any:
            self.say("measuring frozen features", style="dim")
        return measurements.results(self.trainer, self.module)

    def _fit_whitening(self) -> None:
        """Store with the encoder what whitens its features, unless they are not numbers."""
        features = self.observers.measurements.training_features(self.trainer, self.module)
        if len(features) > 1 and features.isfinite().all():
            self.module.model.encoder.fit_whitening(features)
