"""The config of each script, whole."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from mae.config.schema.components import Component
from mae.config.schema.data import AnyData
from mae.config.schema.fields import Chosen, Group, key
from mae.config.schema.protocols import AnyProtocol, AnyTask, Classification
from mae.config.schema.training import AnyLogger, Callbacks, Debug, Optim, Trainer

NUMBERS = "the number of images and the machine"
Label = Annotated[int, Field(ge=1)]


class RunConfig(Group):
    """What both scripts have."""

    run_dir: Chosen[str] = key("folder of the run", chosen_by="the time: runs/<stage>/<time>")
    seed: int = key("of everything that is drawn, labels too", least=0)
    epochs: Chosen[int] = key("passes over the training images", chosen_by=NUMBERS, least=1)
    batch_size: Chosen[int] = key(
        "images per optimizer step, over all devices and accumulation", chosen_by=NUMBERS, least=1
    )
    resume: bool = key("continue the run in run_dir", default=False)
    data: AnyData
    model: Component
    optim: Optim
    trainer: Trainer
    logger: AnyLogger
    callbacks: Callbacks
    debug: Debug = Field(default_factory=Debug)

    def plain(self) -> dict[str, Any]:
        """Return plain values, as they are kept in config.yaml."""
        return self.model_dump(by_alias=True, exclude_none=False)


class PretrainConfig(RunConfig):
    """The config of train_pretrain.py."""

    minutes: float | None = key(
        "a budget in place of epochs: steps are timed, and as many epochs chosen as take so long; null: not in minutes",
        above=0,
        default=None,
    )
    epoch_steps: int | None = key(
        "optimizer steps after which an epoch ends; null: all images were seen; chosen where whole epochs miss the minutes",
        least=1,
        default=None,
    )
    masking: Component
    decoder: Component
    objective: Component


class FinetuneConfig(RunConfig):
    """The config of train_finetune.py."""

    checkpoint: str | None = key("a run folder, a .ckpt, a released .pth, a transformers folder; null: random weights")
    labels_per_class: int | None = key("this many training labels of every class; null: all", least=1)
    label_fraction: float | None = key("this share of the training labels; null: all", above=0, most=1)
    baselines: Chosen[bool] = key(
        "beside it, train from random weights and classify raw pixels",
        chosen_by="the protocol and the length of the run",
    )
    evaluate_only: bool = key("score a finished classifier: evaluate_only=true checkpoint=RUN", default=False)
    protocol: AnyProtocol
    task: AnyTask = Field(default_factory=lambda: Classification(name="classification"))
