"""The first stage: prepare a pretraining run, run it, report it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from rich.console import Console

from mae.assembly import Config, check_values, load_preset, resumed_config
from mae.checkpoints.format import save
from mae.data.datamodule import ImageData
from mae.data.load import load_splits
from mae.data.look import look_at
from mae.defaults import Choice, Chooser, Machine, choose_images_and_model, choose_loading, choose_pretraining
from mae.evaluation.features import frozen, raw_pixels
from mae.evaluation.knn_probe import KnnProbe
from mae.evaluation.verdict import pretraining_verdicts
from mae.masking.samplers import create_sampler
from mae.models.autoencoder import MaskedAutoencoder, create_autoencoder
from mae.optim.schedule import scaled_lr
from mae.report.page import write_run_report
from mae.report.pictures import save_reconstructions
from mae.run_folder import RunFolder, choose_run_folder, shared_with_children
from mae.training.callbacks import KnnAccuracy, ReconstructionPictures
from mae.training.loggers import create_loggers
from mae.training.optimization import Optimization
from mae.training.pretraining import PretrainingModule
from mae.training.progress import TrainingProgress
from mae.training.summary import device_row, model_rows, optimization_rows, show_summary
from mae.training.trainer import chosen_precision, count_devices, create_trainer, has_accelerator, micro_batch


def build_model(config: Config) -> MaskedAutoencoder:
    """Build the autoencoder of a config whose every value is chosen; the seed decides its weights."""
    L.seed_everything(config["seed"], verbose=False)
    model, decoder, data = config["model"], config["decoder"], config["data"]
    return create_autoencoder(
        model["name"],
        data["image_size"] if isinstance(data["image_size"], int) else tuple(data["image_size"]),
        data["channels"],
        decoder=decoder["name"],
        decoder_width=decoder["width"],
        decoder_depth=decoder["depth"],
        decoder_heads=decoder["heads"],
        normalize_pixels=config["objective"]["normalize"],
        **{key: value for key, value in model.items() if key != "name"},
    )


def prepare(config: Config, overrides: Sequence[str] = ()) -> Pretraining:
    """Check everything and build every part, before any work starts.

    Args:
        config: The composed config; null values are chosen here.
        overrides: What the user gave, which a resume checks against the run.

    Raises:
        ValueError: A value is wrong, or things do not fit each other.
        FileNotFoundError: A folder or checkpoint does not exist.
        ImportError: An extra is needed and not installed.
    """
    check_values(config)
    folder = choose_run_folder(config["run_dir"], "pretrain", config["resume"])
    config["run_dir"] = str(folder.path)
    if config["resume"] and folder.stored_config is not None:
        config = resumed_config(config, folder.stored_config, overrides)
    trainer_options, optim = config["trainer"], config["optim"]
    devices = count_devices(trainer_options)
    accelerated = has_accelerator(trainer_options["accelerator"])
    machine = Machine.here(accelerated)

    splits = load_splits(config["data"])
    look = look_at(splits.train)
    chooser = Chooser(config)
    choose_images_and_model(chooser, look, machine, load_preset)
    choose_loading(chooser, look, machine, devices)
    choose_pretraining(chooser, look.count, machine)
    trainer_options["precision"] = chosen_precision(trainer_options["precision"], accelerated)

    model = build_model(config)
    if trainer_options["grad_checkpointing"]:
        model.encoder.vit.set_grad_checkpointing()
    sampler = create_sampler(**config["masking"])
    visible = sampler.check(model.grid)
    micro = micro_batch(config["batch_size"], devices, trainer_options["accumulate"])
    data = ImageData(
        splits,
        image_size=model.encoder.image_size,
        channels=config["data"]["channels"],
        effective_batch=config["batch_size"],
        micro_batch=micro,
        min_scale=config["data"]["min_scale"],
        flip=config["data"]["flip"],
        num_workers=config["data"]["num_workers"],
        seed=config["seed"],
    )
    if config["data"]["mean"] is None or config["data"]["std"] is None:
        config["data"]["mean"], config["data"]["std"] = data.measure_pixels()
    model.encoder.set_pixel_statistics(config["data"]["mean"], config["data"]["std"])

    total_steps = data.steps_per_epoch * config["epochs"]
    optimization = Optimization(
        name=optim["name"],
        lr=scaled_lr(optim["base_lr"], config["batch_size"]),
        weight_decay=optim["weight_decay"],
        betas=tuple(optim["betas"]),
        momentum=optim["momentum"],
        layer_decay=1.0,
        depth=model.encoder.depth,
        warmup_steps=round(optim["warmup_epochs"] * data.steps_per_epoch),
        total_steps=total_steps,
        final_lr=optim["final_lr"],
    )
    rows = [
        ("data", f"{look}; validation: {len(splits.val):,}, {splits.origin}"),
        *model_rows(model.encoder, model),
        (
            "masking",
            f"{config['masking']['ratio']:.0%}: the encoder sees {visible} of {model.grid[0] * model.grid[1]} patches",
        ),
        *optimization_rows(optimization, model, base_lr=optim["base_lr"], batch_size=config["batch_size"], micro=micro),
    ]

    module = PretrainingModule(model, sampler, optimization, validation_images=len(splits.val), seed=config["seed"])
    if trainer_options["compile"]:
        module.model.compile()
    console = Console()
    options = config["callbacks"]
    progress = TrainingProgress(console, quiet=not trainer_options["progress"])
    pictures = ReconstructionPictures(
        folder.path / "pictures", data, options["pictures"], options["picture_times"], save_reconstructions
    )
    probe = (
        KnnProbe(data, options["knn_bank"], options["knn_queries"]) if options["knn"] and splits.train.classes else None
    )
    callbacks: list[L.Callback] = [progress]
    if options["pictures"]:
        callbacks.append(pictures)
    if probe is not None:
        callbacks.append(KnnAccuracy(probe, options["knn_times"]))
    trainer = create_trainer(
        trainer_options,
        folder=folder.path,
        epochs=config["epochs"],
        total_steps=total_steps,
        clip_norm=optim["clip_norm"],
        monitor="val_loss",
        mode="min",
        loggers=create_loggers(config, folder.path, folder.resume_step()),
        callbacks=callbacks,
    )
    rows.append(device_row(trainer, trainer_options["precision"]))
    job = Pretraining(config, folder, data, module, trainer, progress, pictures, probe, console, chooser.choices)
    if trainer.is_global_zero and trainer_options["progress"]:
        show_summary(console, f"Pretraining in {folder.path}", rows, chooser.choices)
    return job


@dataclass
class Pretraining:
    """A pretraining run, ready to go."""

    config: Config
    folder: RunFolder
    data: ImageData
    module: PretrainingModule
    trainer: L.Trainer
    progress: TrainingProgress
    pictures: ReconstructionPictures
    probe: KnnProbe | None
    console: Console
    choices: list[Choice]

    def run(self) -> Mapping[str, Any]:
        """Train, measure, and write the encoder, results.json and report.html; return the results."""
        self.folder.start(self.config)
        began = time.perf_counter()
        with shared_with_children(self.folder):
            self.trainer.fit(
                self.module, datamodule=self.data, ckpt_path=self.folder.last_checkpoint, weights_only=True
            )
        last = self.folder.path / "checkpoints" / "last.ckpt"
        self.trainer.save_checkpoint(last)
        self.trainer.loggers = []  # what follows belongs to results.json, not to the curves
        (scores,) = self.trainer.validate(self.module, datamodule=self.data, verbose=False)
        if not self.trainer.is_global_zero:
            return {}
        model = self.module.model
        save(model.encoder, self.folder.path / "encoder")
        results = self.folder.earlier_results() | {
            "stage": "pretrain",
            "val_loss": scores["val_loss"],
            "epochs": self.config["epochs"],
            "steps": self.trainer.global_step,
            "images_seen": self.trainer.global_step * self.config["batch_size"],
            "parameters": sum(p.numel() for p in model.parameters()),
            "normalize_pixels": model.normalize_pixels,
        }
        if self.progress.clock.images:
            results["images_per_second"] = self.progress.clock.images_per_second
            results["waiting_share"] = self.progress.clock.waiting_share
            results["seconds"] = time.perf_counter() - began
        if self.config["callbacks"]["pictures"]:
            self.pictures.draw(self.module, self.folder.path / "pictures" / "reconstructions.png")
        results |= self._knn()
        self.folder.write_json("results.json", results)
        verdicts = pretraining_verdicts(results)
        report = write_run_report(
            self.folder.path, self.config, results, verdicts, [str(choice) for choice in self.choices]
        )
        if not self.progress.quiet:
            for verdict in verdicts:
                self.console.print(verdict, highlight=False)
            self.console.print(f"encoder  {self.folder.path / 'encoder'}\nreport   {report}", highlight=False)
        return results

    def _knn(self) -> dict[str, float]:
        """Measure the trained encoder beside the same one at random weights, and beside raw pixels."""
        if self.probe is None:
            return {}
        if not self.progress.quiet:
            self.console.print("measuring kNN on frozen features: trained, random, raw pixels", style="dim")
        mean, std, pool = self.module.mean, self.module.std, self.probe.pool
        with torch.random.fork_rng():
            random = build_model(self.config).encoder.to(mean.device)
        return {
            "knn_top1": self.probe.accuracy(frozen(self.module.model.encoder, pool), mean, std),
            "knn_top1_random": self.probe.accuracy(frozen(random, pool), mean, std),
            "knn_top1_pixels": self.probe.accuracy(raw_pixels, mean, std),
        }
