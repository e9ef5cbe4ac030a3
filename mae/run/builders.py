"""The parts of a run that both stages build alike, from the typed config."""

from __future__ import annotations

import secrets
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import Logger

from mae.data.datamodule import ImageData
from mae.data.loading.unreadable import UnreadableImages
from mae.data.splits import Splits
from mae.data.streaming.stream import Stream
from mae.models.backbones.backbone import Backbone
from mae.optim.schedule import scaled_lr
from mae.run.setting import Setting, placement
from mae.training.loggers import MetricsFile, create_wandb_logger
from mae.training.optimization import Optimization
from mae.training.trainer import create_evaluator


def build_loggers(setting: Setting[Any]) -> list[Logger]:
    """Return metrics.csv's logger, and wandb's where the config asks for it.

    wandb's run id becomes part of the config, and so of config.yaml.

    Raises:
        ImportError: wandb is asked for and not installed.
    """
    folder, options = setting.folder, setting.config.logger
    loggers: list[Logger] = [MetricsFile(folder.path, folder.resume_step())]
    if options.name == "wandb":
        options.id = options.id or secrets.token_hex(4)
        shown = setting.config.plain()
        loggers.append(
            create_wandb_logger(
                folder.path,
                project=options.project,
                run_name=options.run_name,
                offline=options.offline,
                id=options.id,
                config=shown,
            )
        )
    return loggers


def build_data(
    setting: Setting[Any], splits: Splits, encoder: Backbone, *, masks: bool = False, rand_augment: int = 0
) -> ImageData:
    """Return the batches that the config describes, with masks for labels where they are asked for.

    Pixel statistics are measured where they are not given.

    Raises:
        ValueError: The images are fewer than a batch, or than the devices.
    """
    options = setting.config.data
    for name, split in (("validation", splits.val), ("test", splits.test)):
        if split is not None and len(split) < setting.devices:
            raise ValueError(
                f"{len(split)} {name} images are fewer than the {setting.devices} devices: use trainer.devices={len(split)}"
            )
    if isinstance(splits.train, Stream):
        splits.train.readers_for(setting.devices, options.num_workers)  # says what does not fit before work starts
    if options.decode == "device" and not torch.cuda.is_available():
        raise ValueError("data.decode=device decodes JPEGs on a CUDA GPU, and there is none: leave it out")
    data = ImageData(
        splits,
        image_size=encoder.image_size,
        channels=encoder.in_channels,
        effective_batch=setting.config.batch_size,
        micro_batch=setting.micro_batch,
        min_scale=options.min_scale,
        flip=options.flip,
        num_workers=options.num_workers,
        seed=setting.config.seed,
        rand_augment=rand_augment,
        bits=options.bits,
        repeats=options.repeats,
        decode=options.decode,
        masks=masks,
        unreadable=UnreadableImages(
            sum(len(part) for part in splits.parts), options.max_unreadable, setting.folder.path / "unreadable.txt"
        ),
    )
    if options.mean is None or options.std is None:
        known, reason = splits.statistics, "of all training images, as the shards' manifest says"
        if known is None or len(known[0]) != encoder.in_channels:  # grey ones say nothing of the three colours
            known, reason = data.measure_pixels(), f"measured on {data.statistics_images:,} training images"
        setting.choices.fill("data.mean", list(known[0]), reason)
        setting.choices.fill("data.std", list(known[1]), reason)
    encoder.set_pixel_statistics(options.mean, options.std)
    return data


def build_optimization(
    setting: Setting[Any], encoder: Backbone, steps_per_epoch: int, layer_decay: float = 1.0, head_rate: float = 1.0
) -> Optimization:
    """Return the optimizer and schedule that the config describes."""
    config, options = setting.config, setting.config.optim
    steps_per_epoch = setting.steps_of(steps_per_epoch)
    return Optimization(
        name=options.name,
        lr=scaled_lr(options.base_lr, config.batch_size),
        weight_decay=options.weight_decay,
        betas=(options.betas[0], options.betas[1]),
        momentum=options.momentum,
        layer_decay=layer_decay,
        depth=encoder.depth,
        layer_of=encoder.layer_of,
        head_rate=head_rate,
        warmup_steps=round(options.warmup_epochs * steps_per_epoch),
        total_steps=steps_per_epoch * config.epochs,
        final_lr=options.final_lr,
        schedule=options.schedule,
        fall_every=max(1, round(options.step_epochs * steps_per_epoch)),
        # Lightning refuses to clip the gradients of a fused optimizer under mixed precision.
        fused=options.clip_norm is None,
    )


def build_evaluator(setting: Setting[Any]) -> L.Trainer:
    """Return a trainer that trains nothing and writes nothing."""
    options = setting.config.trainer
    return create_evaluator(
        placement(options), precision=options.precision, show_progress=not setting.quiet and setting.console.is_terminal
    )
