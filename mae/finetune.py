"""The second stage: prepare a probe or a fine-tuning, run it, report it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np

from mae.assembly import load_preset
from mae.checkpoints.format import Checkpoint
from mae.checkpoints.load import LoadReport, encoder_from, read_checkpoint
from mae.checks import Config
from mae.data.load import load_splits
from mae.data.look import look_at
from mae.data.sources import Splits, Subset, few_labels
from mae.defaults import Chooser, choose_finetuning, choose_images_and_model, choose_loading
from mae.models.classifier import Classifier
from mae.models.encoder import Encoder
from mae.models.heads import LinearHead
from mae.stage import Stage, build_data, build_optimization, image_size, open_setting
from mae.training.finetuning import FinetuningModule
from mae.training.summary import model_rows, optimization_rows

PROTOCOLS = ("linear_probe", "finetune")


def build_encoder(config: Config, checkpoint: Checkpoint | None) -> tuple[Encoder, LoadReport | None]:
    """Build the encoder: with the checkpoint's weights, or at random, as the seed decides."""
    L.seed_everything(config["seed"], verbose=False)
    drop_path = config["protocol"].get("drop_path", 0.0)
    if checkpoint is not None:
        return encoder_from(checkpoint, image_size=image_size(config), drop_path=drop_path)
    return Encoder(
        image_size=image_size(config), in_channels=config["data"]["channels"], drop_path=drop_path, **config["model"]
    ), None


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
        f"model.{key}": (chooser.get(f"model.{key}"), encoder[key])
        for key in ("name", "patch_size", "width", "depth", "heads")
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
    setting = open_setting(config, "finetune", overrides)
    config, chooser = setting.config, setting.chooser
    if config["checkpoint"] == "???":
        raise ValueError(
            f"checkpoint is missing: give a run folder{newest_run()}, or checkpoint=null to start from scratch"
        )
    protocol = config["protocol"]
    if protocol["name"] not in PROTOCOLS:
        raise ValueError(f"protocol.name={protocol['name']!r} is unknown: choose one of {', '.join(PROTOCOLS)}")
    frozen = protocol["name"] == "linear_probe"
    checkpoint = None if config["checkpoint"] is None else read_checkpoint(config["checkpoint"])

    splits = labelled_splits(config)
    look = look_at(splits.train)
    if checkpoint is not None:
        follow_checkpoint(chooser, checkpoint)
    else:
        choose_images_and_model(chooser, look, setting.machine, load_preset)
    choose_loading(chooser, look, setting.machine, setting.devices)
    choose_finetuning(chooser, look.count, setting.machine, setting.shares)
    if frozen and setting.micro_batch < 2:
        raise ValueError(
            f"batch_size={config['batch_size']} gives a device one image, and the probe's BatchNorm needs two or more"
        )

    encoder, report = build_encoder(config, checkpoint)
    if config["trainer"]["grad_checkpointing"]:
        encoder.vit.set_grad_checkpointing()
    classes = splits.train.classes
    head = LinearHead(encoder.width, len(classes), batch_norm=frozen, init_std=protocol["head_std"])
    model = Classifier(encoder, head, pool=protocol["pool"], frozen=frozen)
    data = build_data(setting, splits, encoder)
    optimization = build_optimization(setting, encoder, data.steps_per_epoch, protocol.get("layer_decay", 1.0))
    module = FinetuningModule(
        model,
        optimization,
        classes=classes,
        label_smoothing=protocol.get("label_smoothing", 0.0),
        seed=config["seed"],
    )
    if config["trainer"]["compile"]:
        model.compile()
    trainer, progress = Stage.build_trainer(setting, optimization.total_steps, "val_top1", "max")

    job = Finetuning(setting, data, module, trainer, progress)
    test = f"test: {len(splits.test):,}, read once, at the end" if splits.test is not None else "no test split"
    job.show_summary(
        protocol["name"],
        [
            ("data", f"{look}, {len(classes)} classes; validation: {len(splits.val):,}, {splits.origin}; {test}"),
            (
                "weights",
                str(report) if report else "random, and frozen: a baseline" if frozen else "random, from scratch",
            ),
            *model_rows(encoder, model),
            *optimization_rows(
                optimization, model, config["optim"]["base_lr"], config["batch_size"], setting.micro_batch
            ),
        ],
    )
    return job


@dataclass
class Finetuning(Stage):
    """A probe or a fine-tuning, ready to go."""

    module: FinetuningModule

    def run(self) -> Mapping[str, Any]:
        """Train, choose the best epoch on validation, read the test split once; return the results."""
        self.fit()
        best = self.setting.folder.path / "checkpoints" / "best.ckpt"
        where: dict[str, Any] = {"datamodule": self.data, "ckpt_path": best, "weights_only": True, "verbose": False}
        (scores,) = self.trainer.validate(self.module, **where)
        if self.data.splits.test is not None:
            scores = {**scores, **self.trainer.test(self.module, **where)[0]}
        if not self.trainer.is_global_zero:
            return {}
        labels = self.data.splits.train.labels
        assert labels is not None, "labelled_splits() refuses data without labels"
        results = {
            "stage": "finetune",
            "protocol": self.setting.config["protocol"]["name"],
            **scores,
            "epochs": self.setting.config["epochs"],
            "labelled_images": len(labels),
            "largest_class_share": float(np.bincount(labels).max() / len(labels)),
            "parameters": sum(parameter.numel() for parameter in self.module.model.parameters()),
        }
        return self.finish(self.module.model.encoder, results, [_verdict(results)])


def _verdict(results: Mapping[str, Any]) -> str:
    split, accuracy = ("test", results["test_top1"]) if "test_top1" in results else ("validation", results["val_top1"])
    return (
        f"{results['protocol']} on {results['labelled_images']:,} labelled images: {split} accuracy {accuracy:.1%}; "
        f"always naming the commonest class would score about {results['largest_class_share']:.1%}."
    )
