"""What both stages share: opening a run, building its data, optimizer and trainer, fitting and finishing it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import lightning as L
import torch
from rich.console import Console

from mae.checkpoints.format import save
from mae.config.checks import Config, check_values
from mae.config.choices import Choices, Machine
from mae.config.composing import resumed_config
from mae.data.datamodule import ImageData
from mae.data.loading.unreadable import UnreadableImages
from mae.data.splits import Splits
from mae.data.streaming.stream import Stream
from mae.models.backbones.backbone import Backbone
from mae.optim.schedule import scaled_lr
from mae.report.page import Figure, write_run_report
from mae.report.tables import Table
from mae.run.folder import RunFolder, choose_run_folder, shared_with_children
from mae.training.callbacks.progress import TrainingProgress
from mae.training.loggers import create_loggers
from mae.training.optimization import Optimization
from mae.training.summary import Rows, show_summary
from mae.training.trainer import (
    chosen_precision,
    count_devices,
    create_evaluator,
    create_trainer,
    has_accelerator,
    micro_batch,
)


@dataclass
class Setting:
    """A checked config, the folder it writes to, and the machine it runs on.

    Attributes:
        config: Plain values; null ones are chosen while the parts are built.
        folder: The run folder; nothing is written to it yet.
        devices: Over all nodes.
        machine: What the defaults may count on.
        choices: Fills the config, and keeps the reasons.
        console: Where a person reads.
    """

    config: Config
    folder: RunFolder
    devices: int
    machine: Machine
    choices: Choices
    console: Console

    @property
    def quiet(self) -> bool:
        """Whether nothing is to be printed."""
        return not self.config["trainer"]["progress"]

    def say(self, *lines: str, style: str | None = None) -> None:
        """Print lines, unless the run is quiet."""
        if not self.quiet:
            for line in lines:
                self.console.print(line, style=style, highlight=False, soft_wrap=True)

    @property
    def shares(self) -> int:
        """Into how many forward passes a batch is divided."""
        return self.devices * int(self.config["trainer"]["accumulate"])

    @property
    def micro_batch(self) -> int:
        """Images per device and forward pass."""
        return micro_batch(self.config["batch_size"], self.devices, self.config["trainer"]["accumulate"])


def open_setting(config: Config, stage: str, overrides: Sequence[str]) -> Setting:
    """Check the config's values, find its run folder, and count the devices.

    Raises:
        ValueError: A value is wrong, the folder holds a run, or a resume would change what the run computes.
    """
    check_values(config)
    folder = choose_run_folder(config["run_dir"], stage, config["resume"])
    config["run_dir"] = str(folder.path)
    if config["resume"] and folder.stored_config is not None:
        config = resumed_config(config, folder.stored_config, overrides)
    trainer = config["trainer"]
    accelerated = has_accelerator(trainer["accelerator"])
    trainer["precision"] = chosen_precision(trainer["precision"], accelerated)
    return Setting(config, folder, count_devices(trainer), Machine.here(accelerated), Choices(config), Console())


def image_size(config: Config) -> int | tuple[int, int]:
    """Return ``data.image_size`` as a side or (H, W)."""
    size = config["data"]["image_size"]
    return size if isinstance(size, int) else (size[0], size[1])


def build_data(setting: Setting, splits: Splits, encoder: Backbone, *, masks: bool = False) -> ImageData:
    """Return the batches that the config describes, with masks for labels where they are asked for.

    Pixel statistics are measured where they are not given.

    Raises:
        ValueError: The images are fewer than a batch, or than the devices.
    """
    options = setting.config["data"]
    for name, split in (("validation", splits.val), ("test", splits.test)):
        if split is not None and len(split) < setting.devices:
            raise ValueError(
                f"{len(split)} {name} images are fewer than the {setting.devices} devices: use trainer.devices={len(split)}"
            )
    if isinstance(splits.train, Stream):
        splits.train.readers_for(setting.devices, options["num_workers"])  # says what does not fit before work starts
    if options["decode"] == "device" and not torch.cuda.is_available():
        raise ValueError("data.decode=device decodes JPEGs on a CUDA GPU, and there is none: leave it out")
    data = ImageData(
        splits,
        image_size=encoder.image_size,
        channels=encoder.in_channels,
        effective_batch=setting.config["batch_size"],
        micro_batch=setting.micro_batch,
        min_scale=options["min_scale"],
        flip=options["flip"],
        num_workers=options["num_workers"],
        seed=setting.config["seed"],
        rand_augment=setting.config.get("protocol", {}).get("rand_augment") or 0,
        bits=options["bits"],
        repeats=options["repeats"],
        decode=options["decode"],
        masks=masks,
        unreadable=UnreadableImages(
            sum(len(part) for part in splits.parts), options["max_unreadable"], setting.folder.path / "unreadable.txt"
        ),
    )
    if options["mean"] is None or options["std"] is None:
        known = splits.statistics
        if known is None or len(known[0]) != encoder.in_channels:  # grey ones say nothing of the three colours
            known = data.measure_pixels()
        options["mean"], options["std"] = (list(values) for values in known)
    encoder.set_pixel_statistics(options["mean"], options["std"])
    return data


def build_optimization(
    setting: Setting, encoder: Backbone, steps_per_epoch: int, layer_decay: float = 1.0
) -> Optimization:
    """Return the optimizer and schedule that the config describes."""
    config, options = setting.config, setting.config["optim"]
    return Optimization(
        name=options["name"],
        lr=scaled_lr(options["base_lr"], config["batch_size"]),
        weight_decay=options["weight_decay"],
        betas=tuple(options["betas"]),
        momentum=options["momentum"],
        layer_decay=layer_decay,
        depth=encoder.depth,
        warmup_steps=round(options["warmup_epochs"] * steps_per_epoch),
        total_steps=steps_per_epoch * config["epochs"],
        final_lr=options["final_lr"],
        schedule=options.get("schedule", "cosine"),  # runs of earlier versions knew no other
        fall_every=max(1, round(options.get("step_epochs", 0) * steps_per_epoch)),
        # Lightning refuses to clip the gradients of a fused optimizer under mixed precision.
        fused=options["clip_norm"] is None,
    )


def build_evaluator(setting: Setting) -> L.Trainer:
    """Return a trainer that trains nothing and writes nothing."""
    return create_evaluator(setting.config["trainer"], show_progress=not setting.quiet and setting.console.is_terminal)


def write_run(
    setting: Setting,
    results: Mapping[str, Any],
    verdicts: Sequence[str],
    *,
    tables: Sequence[Table] = (),
    figures: Sequence[Figure] = (),
) -> None:
    """Write results.json and report.html, and say what they hold."""
    setting.folder.write_json("results.json", results)
    report = write_run_report(
        setting.folder.path,
        setting.config,
        results,
        verdicts,
        [str(choice) for choice in setting.choices.made],
        tables=tables,
        figures=figures,
    )
    setting.say(*verdicts, f"report   {report}")


@dataclass
class Run:
    """A run whose every part is built.

    Attributes:
        setting: Config, folder and machine.
        data: Batches.
        module: What is trained.
        trainer: Lightning's.
        progress: Its clock says how fast the training was.
    """

    setting: Setting
    data: ImageData
    module: L.LightningModule
    trainer: L.Trainer
    progress: TrainingProgress

    @classmethod
    def build_trainer(
        cls, setting: Setting, total_steps: int, monitor: str, mode: str, callbacks: Sequence[L.Callback] = ()
    ) -> tuple[L.Trainer, TrainingProgress]:
        """Return the trainer, and the progress that it shows."""
        config = setting.config
        progress = TrainingProgress(setting.console, quiet=setting.quiet)
        trainer = create_trainer(
            config["trainer"],
            folder=setting.folder.path,
            epochs=config["epochs"],
            total_steps=total_steps,
            clip_norm=config["optim"]["clip_norm"],
            monitor=monitor,
            mode=mode,
            loggers=create_loggers(config, setting.folder.path, setting.folder.resume_step()),
            callbacks=[progress, *callbacks],
            say=partial(progress.say, style="bold"),
        )
        return trainer, progress

    def show_summary(self, title: str, rows: Rows) -> None:
        """Print what will run, and what was chosen."""
        setting = self.setting
        kind = type(self.trainer.accelerator).__name__.removesuffix("Accelerator")
        rows = [*rows, ("device", f"{self.trainer.world_size} x {kind}, {setting.config['trainer']['precision']}")]
        if setting.config["resume"]:
            step = setting.folder.resume_step()
            rows.append(
                ("resume", "there is nothing to resume: starts anew" if step is None else f"goes on from step {step:,}")
            )
        if self.trainer.is_global_zero and not setting.quiet:
            show_summary(setting.console, f"{title} in {setting.folder.path}", rows, setting.choices.made)

    def fit(self) -> None:
        """Train, from the last checkpoint where the run goes on, and keep the end as ``last.ckpt``."""
        folder = self.setting.folder
        folder.start(self.setting.config)
        self._began = time.perf_counter()
        with shared_with_children(folder):
            self.trainer.fit(self.module, datamodule=self.data, ckpt_path=folder.last_checkpoint, weights_only=True)
        self.trainer.save_checkpoint(folder.path / "checkpoints" / "last.ckpt")
        self.trainer.loggers = []  # what follows belongs to results.json, not to the curves

    def finish(
        self,
        encoder: Backbone,
        results: Mapping[str, Any],
        verdicts: Sequence[str],
        *,
        tables: Sequence[Table] = (),
        figures: Sequence[Figure] = (),
    ) -> Mapping[str, Any]:
        """Write the encoder, results.json and report.html; return the results."""
        folder, clock = self.setting.folder, self.progress.clock
        results = {**folder.earlier_results(), **results}
        if clock.images:  # a resume of a finished run trains nothing, and keeps what was measured
            results["images_per_second"] = clock.images_per_second
            results["waiting_share"] = clock.waiting_share
            results["seconds"] = time.perf_counter() - self._began
        unreadable = self.data.unreadable
        results["unreadable_images"] = count = unreadable.count()
        if count:
            verdicts = [*verdicts, f"{count:,} images cannot be read, listed in {unreadable.path}."]
        save(encoder, folder.path / "encoder")
        write_run(self.setting, results, verdicts, tables=tables, figures=figures)
        self.say(f"encoder  {folder.path / 'encoder'}")
        return results

    def say(self, *lines: str, style: str | None = None) -> None:
        """Print lines, unless the run is quiet."""
        self.setting.say(*lines, style=style)
