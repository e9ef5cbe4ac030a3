"""How images become batches: depth, crops, flips, worker processes."""

from __future__ import annotations

from typing import Any

from mae.config.choices import Choices, Machine, largest_divisor
from mae.config.choosing.finetuning import MANY_LABELS
from mae.config.schema.data import Streamed
from mae.config.schema.protocols import Finetune
from mae.config.schema.roots import FinetuneConfig
from mae.data.inspection import Inspection
from mae.data.source import Source
from mae.data.streaming.stream import choose_readers
from mae.evaluation.mirror import PHOTOGRAPH, look_at_mirrored

GENTLE_SCALE = 0.8
"""Smallest share of an image in a crop, to fine-tune on few labels or small images: what is cut off may be what is meant."""
PAPER_SCALE = 0.08
"""He et al. 2021's in the second stage, on ImageNet."""


def choose_loading(choices: Choices[Any], look: Inspection, machine: Machine, devices: int) -> None:
    """Choose depth, crops and worker processes.

    Args:
        choices: Of either stage.
        look: At the images.
        machine: This one.
        devices: Over all nodes; those of one node share its cores.

    Raises:
        ValueError: The images have other channels than the model sees.
    """
    data = choices.config.data
    cores = machine.cores // max(1, devices // choices.config.trainer.num_nodes)
    channels = data.channels or look.channels
    if channels != look.channels and {channels, look.channels} != {1, 3}:
        raise ValueError(
            f"data.channels={channels}, given or the checkpoint's, does not fit images of {look.channels} channels: only grey and "
            f"colour stand in for each other, so leave it out, or take a checkpoint of {look.channels}"
        )
    deep = "16 bits or floats among the images looked at"
    choices.fill("data.bits", look.bits, deep if look.bits > 8 else "no image looked at holds more")
    choices.fill("data.min_scale", *_scale(choices.config, look))
    if not look.in_memory:
        workers, reason = max(1, min(16, cores - 1)), f"files to decode, {machine.cores} cores"
    elif machine.accelerated:
        workers, reason = max(1, min(4, cores - 1)), "images in memory, beside an accelerator"
    else:
        workers, reason = 0, "images in memory"
    if look.stream_shards and isinstance(data, Streamed):
        lanes = choices.fill(
            "data.lanes", choose_readers(look.stream_shards, devices), f"{look.stream_shards} shards to train on"
        )
        workers, reason = (
            largest_divisor(max(1, lanes), workers),
            f"a divisor of the {lanes} lanes, {machine.cores} cores",
        )
    choices.fill("data.num_workers", workers, reason)


def choose_flip(choices: Choices[Any], look: Inspection, images: Source, labelled: Source | None = None) -> None:
    """Choose whether training images are mirrored: where a test says that it does no harm, see ``look_at_mirrored``.

    Args:
        choices: Of either stage.
        look: At the images.
        images: All training images, also those without a label.
        labelled: Those whose labels are asked too, where they have some.
    """
    if choices.get("data.flip") is None:
        channels = choices.config.data.channels or look.channels
        seen = look_at_mirrored(images, labelled, channels=channels, bits=look.bits, short_side=look.short_side)
        choices.fill("data.flip", seen.harmless, str(seen))


def _scale(config: Any, look: Inspection) -> tuple[float, str]:
    """Return the smallest share of an image that a training crop holds, and why."""
    photographs = look.short_side >= PHOTOGRAPH
    if isinstance(config, FinetuneConfig) and isinstance(config.protocol, Finetune):
        if photographs and look.count >= MANY_LABELS:
            return PAPER_SCALE, "the paper's for the second stage"
        why = f"fewer than {MANY_LABELS:,} labels" if photographs else f"images of {look.short_side} px"
        return GENTLE_SCALE, f"{why}: gentle crops, which leave what is meant in the image"
    if look.short_side < 24:
        return 0.6, "so few pixels leave little to crop"
    if photographs and isinstance(config, FinetuneConfig):
        return PAPER_SCALE, "the paper's for the second stage"
    return 0.2, "the paper's"
