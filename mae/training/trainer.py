"""The Lightning trainer, as both stages use it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import Profiler

from mae.training.callbacks.checkpointing import Best, Keep
from mae.training.callbacks.moments import LastValidation
from mae.training.devices import keep_float32_whole

SHORT_EPOCH = 50
"""Steps; shorter epochs are too short to save after each."""


@dataclass(frozen=True)
class Placement:
    """Where a run is computed, in Lightning's words.

    Attributes:
        accelerator: ``auto``, ``cpu``, ``gpu`` and so on.
        devices: How many on each node, which, or ``auto``.
        num_nodes: Machines.
        strategy: ``auto``, ``ddp`` and so on.
    """

    accelerator: str
    devices: int | str | list[int]
    num_nodes: int
    strategy: str


def count_devices(placement: Placement) -> int:
    """Return on how many devices, over all nodes, a run would be, whatever the spelling of ``devices``.

    Raises:
        ValueError: They are not there.
    """
    quiet_lightning()
    return _build(placement, logger=False, enable_checkpointing=False).world_size


def _build(placement: Placement, **arguments: Any) -> L.Trainer:
    arguments = {"enable_progress_bar": False, **arguments}
    try:
        return L.Trainer(**asdict(placement), enable_model_summary=False, **arguments)
    except (MisconfigurationException, ModuleNotFoundError, RuntimeError, ValueError, TypeError) as error:
        asked = ", ".join(f"trainer.{key}={value}" for key, value in asdict(placement).items())
        raise ValueError(f"no trainer for {asked}: {' '.join(str(error).split())}") from None


def create_trainer(
    placement: Placement,
    *,
    precision: str,
    accumulate: int,
    validate_every: int,
    save_minutes: float,
    folder: Path,
    epochs: int,
    total_steps: int,
    clip_norm: float | None,
    monitor: str,
    mode: str,
    loggers: list[Logger],
    callbacks: list[L.Callback],
    say: Callable[[str], None],
    limit_steps: int | None = None,
    limit_validation: bool = False,
    profiler: Profiler | None = None,
) -> L.Trainer:
    """Return a trainer that keeps ``checkpoints/last.ckpt`` and ``best.ckpt``.

    Args:
        placement: Where.
        precision: Lightning's name of it.
        accumulate: Forward passes per optimizer step.
        validate_every: Epochs; the last one is validated in any case.
        save_minutes: Between checkpoints within an epoch.
        folder: The run folder.
        epochs: In all.
        total_steps: Optimizer steps in all; about 1,000 of them are logged.
        clip_norm: Largest norm of the gradient, or None.
        monitor: Metric that decides which checkpoint is best.
        mode: ``min`` or ``max``.
        loggers: Where metrics go.
        callbacks: Beside the checkpoints.
        say: Tells a person that a signal was heard.
        limit_steps: Optimizer steps of an epoch; None takes all.
        limit_validation: Validate on one batch.
        profiler: Times what the trainer does.

    Raises:
        ValueError: The devices are not there.
    """
    every = validate_every
    if every > epochs:
        raise ValueError(
            f"trainer.validate_every={every} is more than epochs={epochs}: nothing would ever be validated"
        )
    checkpoints = folder / "checkpoints"
    keep = [
        Best(checkpoints, monitor, mode),
        Keep(checkpoints, 1 if total_steps >= SHORT_EPOCH * epochs else every, save_minutes, say),
    ]
    keep_float32_whole()
    return _build(
        placement,
        precision=precision,
        accumulate_grad_batches=accumulate,
        gradient_clip_val=clip_norm,
        max_epochs=epochs,
        check_val_every_n_epoch=every,
        num_sanity_val_steps=1,
        log_every_n_steps=max(1, total_steps // 1000),
        use_distributed_sampler=False,
        logger=loggers,
        callbacks=[LastValidation(), *callbacks, *keep],
        limit_train_batches=None if limit_steps is None else limit_steps * accumulate,
        limit_val_batches=1 if limit_validation else None,
        profiler=profiler,
    )


def create_timer(
    placement: Placement, *, precision: str, accumulate: int, clip_norm: float | None, stopwatch: L.Callback
) -> L.Trainer:
    """Return a trainer for steps that are timed and forgotten: it validates nothing, writes nothing, and goes on until stopped.

    Args:
        placement: Where.
        precision: Lightning's name of it.
        accumulate: Forward passes per optimizer step.
        clip_norm: Largest norm of the gradient, or None.
        stopwatch: Stops it.
    """
    quiet_lightning()
    keep_float32_whole()
    return _build(
        placement,
        precision=precision,
        accumulate_grad_batches=accumulate,
        gradient_clip_val=clip_norm,
        max_epochs=-1,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        log_every_n_steps=1_000_000,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        callbacks=[stopwatch],
    )


def create_evaluator(placement: Placement, *, precision: str, show_progress: bool) -> L.Trainer:
    """Return a trainer for evaluation alone; it writes nothing.

    Args:
        placement: Where.
        precision: Lightning's name of it.
        show_progress: Show a bar.

    Raises:
        ValueError: The devices are not there.
    """
    quiet_lightning()
    keep_float32_whole()
    return _build(
        placement,
        precision=precision,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=show_progress,
        callbacks=[RichProgressBar()] if show_progress else [],
    )


def quiet_lightning() -> None:
    """Keep Lightning's greetings and its advice on other people's code off the terminal."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for pattern in (
        r".*does not have many workers.*",
        r".*Checkpoint directory .* exists and is not empty.*",
        r".*module\(s\) in eval mode.*",  # a frozen encoder is meant to be
        r".*callbacks used to create the checkpoint need to be provided.*",  # to evaluate, none is needed
        r".*LeafSpec.*",
        r".*torch\.load.*weights_only.*",
    ):
        warnings.filterwarnings("ignore", message=pattern)


def micro_batch(batch_size: int, devices: int, accumulate: int) -> int:
    """Return images per device and forward pass: the effective batch, shared out.

    Raises:
        ValueError: It cannot be shared out evenly.
    """
    shares = devices * accumulate
    if batch_size % shares:
        nearest = max(shares, round(batch_size / shares) * shares)
        raise ValueError(
            f"batch_size={batch_size} counts every device and accumulation, and does not divide among {devices} devices x "
            f"trainer.accumulate={accumulate}: {nearest} would"
        )
    return batch_size // shares
