"""``minutes=N``: how long steps take, on this machine and on these images."""

from __future__ import annotations

import copy
import time

from lightning.pytorch.utilities.seed import isolate_rng

from mae.config.choosing.budget import VALIDATION_SHARE, Pace
from mae.config.schema.roots import PretrainConfig
from mae.data.datamodule import ImageData
from mae.data.loading.unreadable import UnreadableImages
from mae.masking.samplers import MaskSampler
from mae.models.masked_model import MaskedModel
from mae.run.setting import Setting, placement
from mae.training.callbacks.stopwatch import Stopwatch
from mae.training.optimization import Optimization
from mae.training.pretraining import PretrainingModule
from mae.training.summary import Rows
from mae.training.trainer import create_timer

SHARE = 0.02
"""Of the minutes, for timing."""
LONGEST = 20.0
"""Seconds of timing, after the warm-up."""


def check_length(config: PretrainConfig) -> None:
    """Raise a ValueError where a run is given both its epochs and its minutes."""
    if config.minutes is not None and config.epochs is not None:
        raise ValueError(
            f"minutes={config.minutes:g} and epochs={config.epochs} both say how long the run is: leave one out; epochs=null takes "
            f"back an experiment's"
        )


def length_rows(config: PretrainConfig, pace: Pace | None) -> Rows:
    """Return a warning where no run takes the minutes that were asked for."""
    warning = pace.warning(config.minutes) if pace is not None and config.minutes is not None else None
    return [] if warning is None else [("warning", f"minutes={config.minutes:g} cannot be met: {warning}")]


def time_steps(
    setting: Setting[PretrainConfig], data: ImageData, model: MaskedModel, sampler: MaskSampler, began: float
) -> Pace:
    """Take real optimizer steps of the run with its batches, time them, and put the weights back.

    Args:
        setting: Of the run, whose batch size is known.
        data: Its batches.
        model: As it will be trained.
        sampler: Draws the masks.
        began: When the run began, by ``time.perf_counter``.

    Raises:
        ValueError: The run is on several devices.
    """
    config, options = setting.config, setting.config.trainer
    assert config.minutes is not None, "asked for where minutes are given"
    if setting.devices > 1:
        raise ValueError(
            f"minutes={config.minutes:g} is timed on one device, and this run has {setting.devices}: give epochs, or "
            f"trainer.devices=1"
        )
    weights = copy.deepcopy(model.state_dict())
    optim = config.optim
    steady = Optimization(
        name=optim.name,
        lr=1e-6,
        weight_decay=optim.weight_decay,
        betas=(optim.betas[0], optim.betas[1]),
        momentum=optim.momentum,
        layer_decay=1.0,
        depth=model.encoder.depth,
        warmup_steps=0,
        total_steps=1_000_000,
        fused=optim.clip_norm is None,
    )
    timed = copy.copy(data)
    timed.unreadable = UnreadableImages(data.unreadable.total, budget=1.0)  # counted when they are trained on
    stopwatch = Stopwatch(min(LONGEST, 60 * SHARE * config.minutes))
    trainer = create_timer(
        placement(options),
        precision=options.precision,
        accumulate=options.accumulate,
        clip_norm=optim.clip_norm,
        stopwatch=stopwatch,
    )
    setting.say(f"timing steps of {config.batch_size} images", style="dim")
    with isolate_rng():
        trainer.fit(
            PretrainingModule(model, sampler, steady, seed=config.seed, repeats=data.repeats), train_dataloaders=timed
        )
    model.load_state_dict(weights)
    model.zero_grad(set_to_none=True)
    images = len(data.splits.val)
    return Pace(
        step=stopwatch.step,
        steps=setting.steps_of(data.steps_per_epoch),
        validation=VALIDATION_SHARE * stopwatch.step * images / config.batch_size,
        spent=time.perf_counter() - began,
    )
