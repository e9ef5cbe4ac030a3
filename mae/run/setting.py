"""A run's setting: its checked config, its folder, and the machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from rich.console import Console

from mae.config.choices import Choices, Machine
from mae.config.resuming import resumed_config
from mae.config.schema.roots import RunConfig
from mae.config.schema.training import Trainer as TrainerOptions
from mae.run.folder import RunFolder, choose_run_folder
from mae.training.devices import check_strategy, chosen_precision, has_accelerator
from mae.training.trainer import Placement, count_devices, micro_batch

C = TypeVar("C", bound=RunConfig)


@dataclass
class Setting(Generic[C]):
    """A checked config, the folder it writes to, and the machine it runs on.

    Attributes:
        config: Plain values; null ones are chosen while the parts are built.
        folder: The run folder; nothing is written to it yet.
        devices: Over all nodes.
        machine: What the defaults may count on.
        choices: Fills the config, and keeps the reasons.
        console: Where a person reads.
    """

    config: C
    folder: RunFolder
    devices: int
    machine: Machine
    choices: Choices[C]
    console: Console

    @property
    def quiet(self) -> bool:
        """Whether nothing is to be printed."""
        return not self.config.trainer.progress

    def say(self, *lines: str, style: str | None = None) -> None:
        """Print lines, unless the run is quiet."""
        if not self.quiet:
            for line in lines:
                self.console.print(line, style=style, highlight=False, soft_wrap=True)

    @property
    def shares(self) -> int:
        """Into how many forward passes a batch is divided."""
        return self.devices * int(self.config.trainer.accumulate)

    @property
    def micro_batch(self) -> int:
        """Images per device and forward pass."""
        return micro_batch(self.config.batch_size, self.devices, self.config.trainer.accumulate)

    def steps_of(self, steps_per_epoch: int) -> int:
        """Return the optimizer steps of an epoch of this run, which ``epoch_steps`` or ``debug.steps`` may cut short."""
        return min(steps_per_epoch, self.limit_steps or steps_per_epoch)

    @property
    def limit_steps(self) -> int | None:
        """Optimizer steps after which an epoch ends at the latest; None where all images are seen."""
        limits = [self.config.debug.steps, getattr(self.config, "epoch_steps", None)]
        return min((limit for limit in limits if limit is not None), default=None)


def open_setting(config: C, stage: str, overrides: Sequence[str]) -> Setting[C]:
    """Check the config's values, find its run folder, and count the devices.

    Raises:
        ValueError: A value is wrong, the folder holds a run, or a resume would change what the run computes.
    """
    folder = choose_run_folder(config.run_dir, stage, config.resume)
    # A folder that no override names was given by a program, as to a baseline: what made its config is not known here.
    named = config.run_dir is None or any(text.startswith("run_dir=") for text in overrides)
    folder.overrides = overrides if named else None
    config.run_dir = str(folder.path)
    if config.resume and folder.stored_config is not None:
        config = resumed_config(config, folder.stored_config, overrides)
    trainer = config.trainer
    accelerated = has_accelerator(trainer.accelerator)
    trainer.precision = chosen_precision(trainer.precision, accelerated)
    check_strategy(trainer.strategy)
    if config.debug.steps:  # the first steps of an epoch, and all that comes at the end of one
        config.epochs = trainer.validate_every = 1
    return Setting(
        config, folder, count_devices(placement(trainer)), Machine.here(accelerated), Choices(config), Console()
    )


def placement(options: TrainerOptions) -> Placement:
    """Return where the config group ``trainer`` asks a run to be."""
    return Placement(options.accelerator, options.devices, options.num_nodes, options.strategy)


def image_size(config: RunConfig) -> int | tuple[int, int]:
    """Return ``data.image_size`` as a side or (H, W)."""
    size = config.data.image_size
    return size if isinstance(size, int) else (size[0], size[1])
