"""Defaults that fit: from a look at the images and the machine to a size, a model and a recipe.

Each rule is a pure function of what was seen; whatever the user gives is kept, and later rules follow from it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mae.data.inspection import Inspection
from mae.data.reading.augment import can_augment
from mae.data.streaming.stream import choose_readers
from mae.models.protocols import PROBES

PAPER_BASE_LR = 1.5e-4
PAPER_PROBE_BASE_LR = 0.1


@dataclass(frozen=True)
class Machine:
    """What the run has to work with."""

    accelerated: bool
    cores: int

    @classmethod
    def here(cls, accelerated: bool) -> Machine:
        """Return this machine; the cores are those that this process may use."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return cls(accelerated, cores)


@dataclass(frozen=True)
class Choice:
    """One value, and why."""

    key: str
    value: Any
    reason: str

    def __str__(self) -> str:
        return f"{self.key}={self.value}: {self.reason}"


class Choices:
    """Fills what is null in a nested config, and keeps the reasons."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.made: list[Choice] = []

    def get(self, key: str) -> Any:
        """Return the value at a dotted key, None where a part of the way is missing."""
        node: Any = self.config
        for part in key.split("."):
            node = node.get(part) if isinstance(node, Mapping) else None
        return node

    def fill(self, key: str, value: Any, reason: str) -> Any:
        """Set a dotted key where it is null; return what then stands there."""
        if self.get(key) is None:
            *groups, leaf = key.split(".")
            node = self.config
            for group in groups:
                node = node.setdefault(group, {})
            node[leaf] = value
            self.made.append(Choice(key, value, reason))
        return self.get(key)


def preset_for(side: int, count: int, machine: Machine) -> tuple[str, int, str]:
    """Return (model preset, image size, reason) for images of this short side in pixels."""
    if side < 24:
        return "digits", 16, f"images of {side} px"
    if side < 32:
        return "small_28", 28, f"images of {side} px"
    if side < 48:
        return "small_32", 32, f"images of {side} px"
    if side < 112:
        return "small_64", 64, f"images of {side} px"
    if not machine.accelerated:
        return "tiny", 224, f"photographs of {side} px, without an accelerator"
    if count < 100_000:
        return "small", 224, f"{count:,} photographs of {side} px: fewer than 100,000 do not fill a larger model"
    return "base", 224, f"{count:,} photographs of {side} px"


def choose_images_and_model(
    choices: Choices, look: Inspection, machine: Machine, load_preset: Callable[[str], Mapping[str, Any]]
) -> None:
    """Choose image size, channels and model."""
    given = choices.get("data.image_size")
    side = look.short_side if given is None else (given if isinstance(given, int) else min(given))
    preset, size, reason = preset_for(side, look.count, machine)
    choices.fill("data.image_size", size, reason)
    seen = {1: "every image looked at is grey", 3: "colour among the images looked at"}
    choices.fill("data.channels", look.channels, seen.get(look.channels, "what the images hold"))
    values = load_preset(preset)
    if choices.get("model.name") is None:
        choices.made.append(Choice("model", preset, reason))
    # A model of the user's own choice still needs a decoder.
    groups = ["decoder"] if choices.get("model.name") else ["model", "decoder"]
    if choices.get("decoder.name") == "linear":  # one layer, which has no sizes of its own
        groups.remove("decoder")
    for group in groups:
        for key, value in values[group].items():
            if group in choices.config and choices.get(f"{group}.{key}") is None:
                choices.config[group][key] = value


def choose_loading(choices: Choices, look: Inspection, machine: Machine, devices: int) -> None:
    """Choose depth, crops, flips and worker processes.

    Raises:
        ValueError: The images have other channels than the model sees.
    """
    channels = choices.get("data.channels") or look.channels
    if channels != look.channels and {channels, look.channels} != {1, 3}:
        raise ValueError(
            f"data.channels={channels}, given or the checkpoint's, does not fit images of {look.channels} channels: only grey and "
            f"colour stand in for each other, so leave it out, or take a checkpoint of {look.channels}"
        )
    deep = "16 bits or floats among the images looked at"
    choices.fill("data.bits", look.bits, deep if look.bits > 8 else "no image looked at holds more")
    if look.short_side < 24:
        choices.fill("data.min_scale", 0.6, "so few pixels leave little to crop")
    if look.short_side >= 112 and choices.get("protocol.name") is not None:
        choices.fill("data.min_scale", 0.08, "the paper's for the second stage")
    choices.fill("data.min_scale", 0.2, "the paper's")
    grey_and_small = choices.get("data.channels") == 1 and look.short_side <= 32
    choices.fill("data.flip", not grey_and_small, "may be characters" if grey_and_small else "the paper's")
    if not look.in_memory:
        workers, reason = max(1, min(16, machine.cores // devices - 1)), f"files to decode, {machine.cores} cores"
    elif machine.accelerated:
        workers, reason = max(1, min(4, machine.cores // devices - 1)), "images in memory, beside an accelerator"
    else:
        workers, reason = 0, "images in memory"
    if look.stream_shards:
        lanes = choices.fill(
            "data.lanes", choose_readers(look.stream_shards, devices), f"{look.stream_shards} shards to train on"
        )
        workers, reason = _divisor(max(1, lanes), workers), f"a divisor of the {lanes} lanes, {machine.cores} cores"
    choices.fill("data.num_workers", workers, reason)


def choose_pretraining(choices: Choices, count: int, machine: Machine, shares: int = 1) -> None:
    """Choose batch size, epochs and learning rate for ``count`` training images; ``shares`` divides the batch."""
    most = (4096 if count >= 500_000 else 1024) if machine.accelerated else 256
    batch = choices.fill(
        "batch_size",
        multiple(_power_of_two(min(most, max(1, count // 8))), shares),
        f"at least 8 steps an epoch, {most} images at most {'here' if machine.accelerated else 'on a CPU'}",
    )
    count *= choices.get("data.repeats") or 1  # images of an epoch
    if machine.accelerated:
        epochs, reason = rounded(100e6 / count, 400, 1600), "100 million images seen, within 400 to 1600 epochs"
    else:
        epochs, reason = (
            rounded(0.25e6 / count, 5, 400),
            "a quarter million images seen on a CPU, within 5 to 400 epochs",
        )
    epochs = choices.fill("epochs", epochs, reason)
    if batch >= 1024:
        choices.fill("optim.base_lr", PAPER_BASE_LR, "the paper's, for large batches")
    else:
        narrow = (choices.get("model.width") or 192) < 192
        peak = 2e-3 if narrow else 1e-3
        rate = float(f"{peak * math.sqrt(256 / batch):.2g}")
        what = "narrow models take large steps" if narrow else "small batches take larger steps than the paper's"
        choices.fill(
            "optim.base_lr", rate, f"{what}: a rate of {peak:g} at 256 images, by the root of the batch elsewhere"
        )
    choose_pace(choices, epochs)


TUNED = ("partial_finetune", "finetune")
MANY_LABELS = 10_000


def choose_finetuning(choices: Choices, count: int, machine: Machine, shares: int = 1) -> None:
    """Choose batch size, epochs and learning rate for ``count`` labelled images; ``shares`` divides the batch."""
    name = choices.get("protocol.name")
    linear = name == "linear_probe"
    most = (1024 if machine.accelerated else 256) if count > 1024 else 64
    # Mixup and CutMix mix pairs of images.
    pairs = name in TUNED and (count >= MANY_LABELS or choices.get("protocol.mixup") or choices.get("protocol.cutmix"))
    unit = 2 * shares if pairs and min(count, most) >= 2 * shares else shares
    batch = choices.fill("batch_size", multiple(min(count, most), unit), f"{count:,} labelled images")
    if count < 1000:
        epochs, reason = 300 if linear else 200, "few labels make short epochs"
    elif machine.accelerated:
        epochs, reason = (90, "the paper's") if linear else (rounded(20e6 / count, 50, 100), "the papers' 50 to 100")
    else:
        most = 90 if linear else 100
        epochs, reason = (
            rounded(0.25e6 / count, 10, most),
            f"a quarter million images seen on a CPU, within 10 to {most} epochs",
        )
    epochs = choices.fill("epochs", epochs, reason)
    if choices.get("optim.name") == "lars":
        _choose_lars_rate(choices, count, epochs)
    else:
        peak = {"adamw": 2e-2 if linear else 1e-3, "sgd": 0.1}.get(choices.get("optim.name"), 1e-3)
        rate = float(f"{peak * 256 / batch:.2g}")
        choices.fill("optim.base_lr", rate, f"a rate of {peak:g} for {name} with {choices.get('optim.name')}")
    choose_pace(choices, epochs)
    if name in TUNED:
        _choose_augmentation(choices, count, epochs)


def choose_baselines(choices: Choices, count: int, machine: Machine) -> None:
    """Choose whether the run also trains from random weights: always for a probe, and where it costs little otherwise."""
    images = count * choices.get("epochs")
    if choices.get("protocol.name") in PROBES:
        choices.fill("baselines", True, "a number alone means little")
    elif images <= (5e6 if machine.accelerated else 0.5e6):
        choices.fill("baselines", True, "a number alone means little, and this one is quick to have beside")
    else:
        choices.fill(
            "baselines", False, "it would double a long run; baselines=true does, or checkpoint=null by itself"
        )


LARS_REACH = 2500
"""Sum of the learning rates of all steps, warm-up and cosine not counted, that a linear probe needs under LARS."""
LARS_MOST = 20
"""Greatest learning rate that is chosen for it: with momentum 0.9 a step of 20% of the weights."""


def _choose_lars_rate(choices: Choices, count: int, epochs: int) -> None:
    """Choose base_lr for LARS: the paper's, or more where a small data set leaves few steps.

    A step of LARS changes a weight by a share of its norm (0.001 times the rate), whatever the gradient. So steps x rate, which
    is epochs x images x base_lr / 256 for every batch size, says how far the weights can go: 45,000 for the paper's 90 epochs
    of ImageNet, 45 for 1,293 digits, where base_lr 0.1 leaves them far from trained. Accuracy is flat from about 1,000 to 20,000.
    """
    reach = epochs * count * PAPER_PROBE_BASE_LR / 256
    if reach >= LARS_REACH:
        choices.fill("optim.base_lr", PAPER_PROBE_BASE_LR, "the paper's")
    else:
        most = LARS_MOST * 256 / choices.get("batch_size")
        rate = float(f"{min(most, LARS_REACH * 256 / (epochs * count)):.2g}")
        choices.fill(
            "optim.base_lr", rate, f"the paper's {PAPER_PROBE_BASE_LR} needs more steps than these images give"
        )


AUGMENTATIONS = {"mixup": 0.8, "cutmix": 1.0, "rand_augment": 9, "erasing": 0.25}


def _choose_augmentation(choices: Choices, count: int, epochs: int) -> None:
    """Choose how strongly training images are changed: as in the paper, or not at all."""
    strong = count >= MANY_LABELS and epochs >= 50
    reason = "the paper's" if strong else "few images or a short run, which strong augmentation would slow down"
    if not can_augment(choices.get("data.channels") or 3, choices.get("data.bits") or 8):
        choices.fill("protocol.rand_augment", 0, "it knows grey and colour images of 8 bits alone")
    for key, value in AUGMENTATIONS.items():
        choices.fill(f"protocol.{key}", value if strong else 0, reason)


def choose_pace(choices: Choices, epochs: int) -> None:
    """Choose how long the run warms up, and how often it is validated."""
    choices.fill("optim.warmup_epochs", round(epochs * 0.05, 3), "5% of the run, as the paper's 40 of 800 epochs")
    choices.fill("trainer.validate_every", _divisor(epochs, epochs // 20), "about 20 validations, the last at the end")


def _divisor(number: int, wanted: int) -> int:
    """Return the largest divisor of a number that is not above the wanted one; 1 always is."""
    return next(value for value in range(max(1, wanted), 0, -1) if number % value == 0)


def multiple(number: int, of: int) -> int:
    """Return the largest multiple that is not above a number; ``of`` itself where there is none."""
    return max(1, number // of) * of


def _power_of_two(number: int) -> int:
    return 1 << (number.bit_length() - 1)


def rounded(number: float, low: int, high: int) -> int:
    """Return a number within bounds, with two significant digits."""
    return int(float(f"{min(high, max(low, number)):.2g}"))
