"""The second stage: prepare a probe or a fine-tuning, run it, report it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.callbacks import Callback, WeightAveraging
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from mae.checkpoints.read import read_header
from mae.config.choosing.finetuning import choose_baselines, choose_finetuning
from mae.config.schema.roots import FinetuneConfig
from mae.data.source import Splits
from mae.downstream.baselines import baseline_config, baseline_table, classify_pixels, earlier_results
from mae.downstream.evaluate import prepare_evaluation
from mae.downstream.frozen_features import prepare_features
from mae.downstream.labelled_data import (
    build_classifier,
    build_encoder,
    open_checkpoint,
    open_labelled,
    require_one_device,
)
from mae.downstream.scoring import score
from mae.downstream.segmentation import prepare_segmentation
from mae.downstream.sweep import Sweep
from mae.models.backbones.backbone import Backbone
from mae.models.cost import parameters
from mae.models.protocols import PROBES, PROTOCOLS
from mae.run.builders import build_data, build_optimization
from mae.run.exits import Job
from mae.run.folder import RunFolder
from mae.run.run import Run
from mae.run.setting import Setting, open_setting
from mae.training.classifying import FinetuningModule
from mae.training.mixing import BatchAugmentation
from mae.training.summary import Rows, model_rows, optimization_rows


def prepare(config: FinetuneConfig, overrides: Sequence[str] = ()) -> Job:
    """Check everything and build every part, before any work starts.

    Args:
        config: The composed config; null values are chosen here.
        overrides: What the user gave, which a resume checks against the run.

    Raises:
        ValueError: A value is wrong, or things do not fit each other.
        FileNotFoundError: A folder or checkpoint does not exist.
        ImportError: An extra is needed and not installed.
    """
    stored = RunFolder(Path(config.run_dir), resume=True).stored_config if config.run_dir else None
    if config.resume and stored and (stored.get("evaluate_only") or _trains_nothing(stored)):
        raise ValueError(
            f"run_dir={config['run_dir']} holds an evaluation, which cannot be resumed: start it anew in another run_dir"
        )
    if config.evaluate_only:
        return prepare_evaluation(config, overrides)
    asked = stored if config.resume and stored else config  # run_dir and resume=true say all
    if asked.get("task", {}).get("name") == "segmentation":
        return prepare_segmentation(config, overrides)
    if _trains_nothing(config):
        return prepare_features(config, overrides)
    return prepare_training(config, overrides)


def _trains_nothing(config: FinetuneConfig) -> bool:
    return bool(config.get("protocol", {}).get("name") == "features")


def prepare_training(config: FinetuneConfig, overrides: Sequence[str] = ()) -> Finetuning:
    """Prepare a protocol that trains something; as ``prepare``."""
    if config.protocol.get("sweep"):
        require_one_device(config, "protocol.sweep=true")
    setting = open_setting(config, "finetune", overrides)
    config, protocol = setting.config, setting.config.protocol
    if protocol.name not in PROTOCOLS:
        known = f"choose one of {', '.join((*PROTOCOLS, 'features'))}"
        hint = "it belongs to task=segmentation" if protocol.name == "dense" else known
        raise ValueError(f"protocol.name={protocol['name']!r} is unknown: {hint}")
    checkpoint = open_checkpoint(config)
    splits, look = open_labelled(setting, checkpoint)
    classes = splits.train.classes
    choose_finetuning(setting.choices, look.count, setting.machine, setting.shares)
    choose_baselines(setting.choices, look.count, setting.machine)
    check_batches(setting, look.count)
    check_classes(setting, classes)

    encoder, report = build_encoder(config, checkpoint)
    if config.trainer.grad_checkpointing:
        encoder.set_grad_checkpointing()
    check_batch_norm(setting, encoder)
    model = build_classifier(config, protocol, encoder, len(classes))
    data = build_data(setting, splits, encoder)
    optimization = build_optimization(setting, encoder, data.steps_per_epoch, protocol.get("layer_decay", 1.0))
    augmentation = BatchAugmentation(
        len(classes),
        **{key: protocol.get(key) or 0.0 for key in ("mixup", "cutmix", "erasing", "label_smoothing")},
    )
    module = FinetuningModule(
        model, protocol, classes, optimization=optimization, augmentation=augmentation, seed=config.seed
    )
    sweep = Sweep.of(setting, encoder, optimization) if protocol.get("sweep") else None
    if config.trainer.compile:
        model.compile()
    averaging: list[Callback] = []
    if protocol.get("ema"):
        # Not Lightning's EMAWeightAveraging, whose sum of two products moves frozen weights by rounding; this one interpolates.
        averaging.append(WeightAveraging(multi_avg_fn=get_ema_multi_avg_fn(protocol.ema)))  # type: ignore[no-untyped-call]
    trainer, progress = Run.build_trainer(setting, optimization.total_steps, "val_top1", "max", averaging)

    job = Finetuning(setting, data, module, trainer, progress, averaging, sweep, checkpoint is not None)
    start = str(report) if report else "random, and frozen: a baseline" if protocol.name in PROBES else "random"
    rows: Rows = [
        ("data", describe_splits(f"{look}, {len(classes)} classes", splits)),
        ("weights", start),
        *model_rows(encoder, model),
        *optimization_rows(optimization, model, config.optim.base_lr, config.batch_size, setting.micro_batch),
    ]
    if protocol.get("layer_decay", 1.0) != 1.0 and not encoder.depth:
        rows.append(("layer decay", f"not in force: {encoder.config['name']} has no blocks to tell apart"))
    if sweep is not None:
        rows.append(("sweep", f"{len(sweep.candidates)} probes side by side, on features extracted once"))
    if protocol.get("ema") and 1 / (1 - protocol.ema) > optimization.total_steps / 2:
        remembered = round(1 / (1 - protocol.ema))
        rows.append(
            ("warning", f"protocol.ema={protocol['ema']} remembers {remembered:,} steps, too many for a run this short")
        )
    job.show_summary(protocol.name, rows)
    return job


def describe_splits(train: str, splits: Splits) -> str:
    """Return the splits in words."""
    test = f"test: {len(splits.test):,}, read once, at the end" if splits.test is not None else "no test split"
    return f"{train}; validation: {len(splits.val):,}, {splits.origin}; {test}"


def check_batches(setting: Setting, count: int) -> None:
    """Raise a ValueError where the protocol cannot work with the batches of a device; ``count`` images are there."""
    protocol, size, micro = setting.config.protocol, setting.config.batch_size, setting.micro_batch
    if (protocol.get("batch_norm") or protocol.get("sweep")) and micro < 2:
        raise ValueError(f"batch_size={size} gives a device one image, and the probe's BatchNorm needs two or more")
    mixed = [f"protocol.{key}={protocol[key]}" for key in ("mixup", "cutmix") if protocol.get(key)]
    if mixed and micro % 2:
        even = size + setting.shares if size + setting.shares <= count else size - setting.shares
        raise ValueError(
            f"batch_size={size} gives a device {micro} images at a time, and {mixed[0]} mixes pairs: "
            f"choose batch_size={even}, or {mixed[0].partition('=')[0]}=0"
        )


def check_batch_norm(setting: Setting, encoder: Backbone) -> None:
    """Raise a ValueError where an encoder that learns would normalise a batch of one image."""
    learns = setting.config.protocol.name not in PROBES
    if learns and setting.micro_batch < 2 and any(isinstance(part, nn.BatchNorm2d) for part in encoder.modules()):
        raise ValueError(
            f"batch_size={setting.config['batch_size']} gives a device one image, and the BatchNorm of {encoder.config['name']} "
            f"needs two or more"
        )


def check_classes(setting: Setting, classes: Sequence[str]) -> None:
    """Raise a ValueError where the run that is to go on has a head of other classes."""
    path = setting.folder.last_checkpoint
    if path is None:
        return
    stored = read_header(path)["hyper_parameters"]["classes"]
    if list(classes) != list(stored):
        other = sorted(set(classes) ^ set(stored))
        raise ValueError(
            f"the head in {path} has {len(stored)} classes, and data={setting.config['data']['source']} now has {len(classes)}; "
            f"{other[0]!r} is in one of them alone: resume on the data that the run was started with, or start a new run"
        )


@dataclass
class Finetuning(Run):
    """A probe or a fine-tuning, ready to go.

    Attributes:
        averaging: The callback that averages the weights, where the protocol does.
        sweep: What to try, where many linear probes are trained in one pass.
        pretrained: Whether the encoder started from a checkpoint.
    """

    module: FinetuningModule
    averaging: list[Callback]
    sweep: Sweep | None
    pretrained: bool

    def run(self) -> Mapping[str, Any]:
        """Train, choose the best epoch on validation, score the test split once, then the baselines; return the results."""
        config, protocol = self.setting.config, self.setting.config.protocol
        best = self.setting.folder.path / "checkpoints" / "best.ckpt"
        if self.sweep is None:
            self.fit()
            # The checkpoint holds the averaged weights already: the callback would swap them for others.
            for callback in self.averaging:
                self.trainer.callbacks.remove(callback)  # type: ignore[attr-defined]
        else:
            self.module = self.sweep.run(self)
        (validated,) = self.trainer.validate(
            self.module, datamodule=self.data, ckpt_path=best, weights_only=True, verbose=False
        )
        scored = score(self.trainer, self.module, self.data, self.setting.folder.path, best)
        labels = self.data.splits.train.labels
        assert labels is not None, "labelled_splits() refuses data without labels"
        results: dict[str, Any] = {
            "stage": "finetune",
            "protocol": protocol.name,
            **validated,
            **(scored.results if scored else {}),
            "epochs": config.epochs,
            "labelled_images": len(labels),
            "largest_class_share": float(np.bincount(labels).max() / len(labels)),
            "parameters": parameters(self.module.model),
            "trained_parameters": _count(self.module.model),
            **(self.sweep.results if self.sweep else {}),
        }
        results |= self.run_baselines()
        if scored is None:
            return {}
        return self.finish(
            self.module.model.encoder,
            results,
            verdicts(results, scored.split),
            tables=[baseline_table(results, scored.split, self.pretrained), *scored.tables],
            figures=[*scored.figures, *(self.sweep.figures if self.sweep else ())],
        )

    def run_baselines(self) -> dict[str, float]:
        """Return the accuracies that the result stands beside, where the config asks for them."""
        config = self.setting.config
        if not config.baselines:
            return {}
        self.say("measuring the baselines: raw pixels" + (", random weights" if self.pretrained else ""), style="dim")
        accuracies = classify_pixels(self.module, self.data)
        if self.pretrained:
            other = baseline_config(self.setting, self.module.model.encoder)
            results = (earlier_results(other) if config.resume else None) or prepare_training(other).run()
            split = self.data.scored[0]
            if results:  # the first process alone has them
                accuracies["random_top1"] = results[f"{split}_top1"]
        return accuracies


def _count(model: nn.Module) -> int:
    return parameters(model, learning=True)


def verdicts(results: Mapping[str, Any], split: str) -> list[str]:
    """Return sentences on a result: how good it is, and whether pretraining helped."""
    accuracy = results[f"{split}_top1"]
    sentences = [
        f"{results['protocol']} on {results['labelled_images']:,} labelled images: "
        f"{'test' if split == 'test' else 'validation'} accuracy {accuracy:.1%}; "
        f"always naming the commonest class would score about {results['largest_class_share']:.1%}."
    ]
    if "pixels_top1" in results:
        random = f"from random weights {results['random_top1']:.1%}; " if "random_top1" in results else ""
        sentences.append(f"Beside it: {random}logistic regression on raw pixels {results['pixels_top1']:.1%}.")
    if results.get("random_top1", 0) > accuracy:
        sentences.append(
            "The pretrained weights did worse than random ones: pretrain longer, or try other learning rates (optim.base_lr)."
        )
    return sentences
