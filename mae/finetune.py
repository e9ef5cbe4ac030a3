"""The second stage: prepare a probe or a fine-tuning, run it, report it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from rich.console import Console

from mae.assembly import Config, check_values, load_preset, resumed_config
from mae.checkpoints.format import Checkpoint, save
from mae.checkpoints.load import LoadReport, encoder_from, read_checkpoint
from mae.data.datamodule import ImageData
from mae.data.load import load_splits
from mae.data.look import look_at
from mae.data.sources import Splits, Subset, few_labels
from mae.defaults import Choice, Chooser, Machine, choose_finetuning, choose_images_and_model, choose_loading
from mae.models.classifier import Classifier
from mae.models.encoder import Encoder
from mae.models.heads import LinearHead
from mae.optim.schedule import scaled_lr
from mae.report.page import write_run_report
from mae.run_folder import RunFolder, choose_run_folder, shared_with_children
from mae.training.finetuning import FinetuningModule
from mae.training.loggers import create_loggers
from mae.training.optimization import Optimization
from mae.training.progress import TrainingProgress
from mae.training.summary import device_row, model_rows, optimization_rows, show_summary
from mae.training.trainer import chosen_precision, count_devices, create_trainer, has_accelerator, micro_batch

PROTOCOLS = ("linear_probe", "finetune")


def build_encoder(config: Config, checkpoint: Checkpoint | None) -> tuple[Encoder, LoadReport | None]:
    """Build the encoder: with the checkpoint's weights, or at random, as the seed decides."""
    L.seed_everything(config["seed"], verbose=False)
    drop_path = config["protocol"].get("drop_path", 0.0)
    size = config["data"]["image_size"]
    size = size if isinstance(size, int) else tuple(size)
    if checkpoint is not None:
        return encoder_from(checkpoint, image_size=size, drop_path=drop_path)
    model = {key: value for key, value in config["model"].items() if key != "name"}
    return Encoder(config["model"]["name"], size, config["data"]["channels"], drop_path=drop_path, **model), None


def follow_checkpoint(chooser: Chooser, checkpoint: Checkpoint) -> None:
    """Take image size, channels, statistics and model from the checkpoint.

    Raises:
        ValueError: A value that the user gave says otherwise.
    """
    encoder = checkpoint.config["encoder"]
    chooser.fill("data.image_size", encoder["image_size"], "the checkpoint's")
    chooser.fill("data.channels", encoder["in_channels"], "the checkpoint's")
    for key in ("mean", "std"):
        if checkpoint.config.get(f"pixel_{key}") is not None:
            chooser.fill(f"data.{key}", list(checkpoint.config[f"pixel_{key}"]), "the checkpoint's")
    given = {
        f"model.{key}": (chooser.get(f"model.{key}"), encoder[key]) for key in ("patch_size", "width", "depth", "heads")
    }
    given["data.channels"] = chooser.get("data.channels"), encoder["in_channels"]
    for key, (wanted, stored) in given.items():
        if wanted is not None and stored is not None and wanted != stored:
            raise ValueError(
                f"{key}={wanted} does not fit the checkpoint {checkpoint.source}, which has {stored}: leave {key} out, or "
                f"checkpoint=null trains another model from scratch"
            )


def labelled_splits(config: Config) -> Splits:
    """Open labelled data, with the draw of training labels that the config asks for.

    Raises:
        ValueError: There are no labels, or fewer than asked for.
    """
    splits = load_splits(config["data"])
    source = config["data"]["source"]
    if splits.train.labels is None:
        raise ValueError(
            f"protocol={config['protocol']['name']} needs labels, and data={source} has none: data=image_folder reads them from "
            f"folders, train/<class>/"
        )
    if len(splits.train.classes) < 2:
        raise ValueError(f"data={source} has one class, {splits.train.classes[0]!r}: a classifier needs two or more")
    chosen = few_labels(
        splits.train.labels, splits.train.classes, config["seed"], config["labels_per_class"], config["label_fraction"]
    )
    if len(chosen) == len(splits.train):
        return splits
    return Splits(Subset(splits.train, chosen), splits.val, splits.test, splits.origin)


def newest_run() -> str:
    """Return a hint that names the newest pretraining run, where there is one."""
    runs = sorted(Path("runs/pretrain").glob("*/encoder"), key=lambda path: path.stat().st_mtime)
    return f", such as checkpoint={runs[-1].parent}" if runs else ""


def prepare(config: Config, overrides: Sequence[str] = ()) -> Finetuning:
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
    folder = choose_run_folder(config["run_dir"], "finetune", config["resume"])
    config["run_dir"] = str(folder.path)
    if config["resume"] and folder.stored_config is not None:
        config = resumed_config(config, folder.stored_config, overrides)
    if config["checkpoint"] == "???":
        raise ValueError(
            f"checkpoint is missing: give a run folder{newest_run()}, or checkpoint=null to start from scratch"
        )
    protocol, trainer_options, optim = config["protocol"], config["trainer"], config["optim"]
    if protocol["name"] not in PROTOCOLS:
        raise ValueError(f"protocol.name={protocol['name']!r} is unknown: choose one of {', '.join(PROTOCOLS)}")
    checkpoint = None if config["checkpoint"] is None else read_checkpoint(config["checkpoint"])
    devices = count_devices(trainer_options)
    accelerated = has_accelerator(trainer_options["accelerator"])
    machine = Machine.here(accelerated)

    splits = labelled_splits(config)
    look = look_at(splits.train)
    chooser = Chooser(config)
    if checkpoint is not None:
        follow_checkpoint(chooser, checkpoint)
    else:
        choose_images_and_model(chooser, look, machine, load_preset)
    choose_loading(chooser, look, machine, devices)
    choose_finetuning(chooser, look.count, machine)
    trainer_options["precision"] = chosen_precision(trainer_options["precision"], accelerated)

    encoder, report = build_encoder(config, checkpoint)
    if trainer_options["grad_checkpointing"]:
        encoder.vit.set_grad_checkpointing()
    frozen = protocol["name"] == "linear_probe"
    head = LinearHead(encoder.width, len(splits.train.classes), batch_norm=frozen, init_std=protocol["head_std"])
    model = Classifier(encoder, head, pool=protocol["pool"], frozen=frozen)
    micro = micro_batch(config["batch_size"], devices, trainer_options["accumulate"])
    if frozen and micro < 2:
        raise ValueError(
            f"batch_size={config['batch_size']} gives a device one image, and the probe's BatchNorm needs two or more"
        )
    data = ImageData(
        splits,
        image_size=encoder.image_size,
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
    encoder.set_pixel_statistics(config["data"]["mean"], config["data"]["std"])

    optimization = Optimization(
        name=optim["name"],
        lr=scaled_lr(optim["base_lr"], config["batch_size"]),
        weight_decay=optim["weight_decay"],
        betas=tuple(optim["betas"]),
        momentum=optim["momentum"],
        layer_decay=protocol.get("layer_decay", 1.0),
        depth=encoder.depth,
        warmup_steps=round(optim["warmup_epochs"] * data.steps_per_epoch),
        total_steps=data.steps_per_epoch * config["epochs"],
        final_lr=optim["final_lr"],
    )
    test = f"test: {len(splits.test):,}, read once, at the end" if splits.test is not None else "no test split"
    rows = [
        (
            "data",
            f"{look}, {len(splits.train.classes)} classes; validation: {len(splits.val):,}, {splits.origin}; {test}",
        ),
        (
            "weights",
            str(report) if report else "random, from scratch" if not frozen else "random, and frozen: a baseline",
        ),
        *model_rows(encoder, model),
        *optimization_rows(optimization, model, base_lr=optim["base_lr"], batch_size=config["batch_size"], micro=micro),
    ]
    module = FinetuningModule(
        model, optimization, classes=splits.train.classes, label_smoothing=protocol.get("label_smoothing", 0.0)
    )
    if trainer_options["compile"]:
        module.model.compile()
    console = Console()
    progress = TrainingProgress(console, quiet=not trainer_options["progress"])
    trainer = create_trainer(
        trainer_options,
        folder=folder.path,
        epochs=config["epochs"],
        total_steps=optimization.total_steps,
        clip_norm=optim["clip_norm"],
        monitor="val_top1",
        mode="max",
        loggers=create_loggers(config, folder.path, folder.resume_step()),
        callbacks=[progress],
    )
    rows.append(device_row(trainer, trainer_options["precision"]))
    if trainer.is_global_zero and trainer_options["progress"]:
        show_summary(console, f"{protocol['name']} in {folder.path}", rows, chooser.choices)
    return Finetuning(config, folder, data, module, trainer, progress, console, chooser.choices)


@dataclass
class Finetuning:
    """A probe or a fine-tuning, ready to go."""

    config: Config
    folder: RunFolder
    data: ImageData
    module: FinetuningModule
    trainer: L.Trainer
    progress: TrainingProgress
    console: Console
    choices: list[Choice]

    def run(self) -> Mapping[str, Any]:
        """Train, choose the best epoch on validation, read the test split once; return the results."""
        self.folder.start(self.config)
        began = time.perf_counter()
        best = self.folder.path / "checkpoints" / "best.ckpt"
        with shared_with_children(self.folder):
            self.trainer.fit(
                self.module, datamodule=self.data, ckpt_path=self.folder.last_checkpoint, weights_only=True
            )
        self.trainer.save_checkpoint(self.folder.path / "checkpoints" / "last.ckpt")
        self.trainer.loggers = []  # what follows belongs to results.json, not to the curves
        where: dict[str, Any] = {"datamodule": self.data, "ckpt_path": best, "weights_only": True, "verbose": False}
        (scores,) = self.trainer.validate(self.module, **where)
        if self.data.splits.test is not None:
            scores = {**scores, **self.trainer.test(self.module, **where)[0]}
        if not self.trainer.is_global_zero:
            return {}
        labels = self.data.splits.train.labels
        assert labels is not None, "labelled_splits() refuses data without labels"
        results = self.folder.earlier_results() | {
            "stage": "finetune",
            "protocol": self.config["protocol"]["name"],
            **scores,
            "epochs": self.config["epochs"],
            "labelled_images": len(labels),
            "largest_class_share": float(np.bincount(labels).max() / len(labels)),
            "parameters": sum(p.numel() for p in self.module.model.parameters()),
        }
        if self.progress.clock.images:
            results["images_per_second"] = self.progress.clock.images_per_second
            results["waiting_share"] = self.progress.clock.waiting_share
            results["seconds"] = time.perf_counter() - began
        save(self.module.model.encoder, self.folder.path / "encoder")
        self.folder.write_json("results.json", results)
        verdict = _verdict(results)
        report = write_run_report(
            self.folder.path, self.config, results, [verdict], [str(choice) for choice in self.choices]
        )
        if not self.progress.quiet:
            self.console.print(f"{verdict}\nreport   {report}", highlight=False)
        return results


def _verdict(results: Mapping[str, Any]) -> str:
    split, accuracy = ("test", results["test_top1"]) if "test_top1" in results else ("validation", results["val_top1"])
    return (
        f"{results['protocol']} on {results['labelled_images']:,} labelled images: {split} accuracy {accuracy:.1%}; "
        f"always naming the commonest class would score about {results['largest_class_share']:.1%}."
    )
