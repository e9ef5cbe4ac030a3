"""How images become batches: depth, crops, flips, worker processes."""

from __future__ import annotations

from typing import Any

from mae.config.choices import Choices, Machine, largest_divisor
from mae.config.schema.data import Streamed
from mae.config.schema.roots import FinetuneConfig
from mae.data.inspection import Inspection
from mae.data.streaming.stream import choose_lanes


def choose_loading(choices: Choices[Any], look: Inspection, machine: Machine, devices: int) -> None:
    """Choose depth, crops, flips and worker processes.

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
    if look.short_side < 24:
        choices.fill("data.min_scale", 0.6, "so few pixels leave little to crop")
    if look.short_side >= 112 and isinstance(choices.config, FinetuneConfig):
        choices.fill("data.min_scale", 0.08, "the paper's for the second stage")
    choices.fill("data.min_scale", 0.2, "the paper's")
    grey_and_small = data.channels == 1 and look.short_side <= 32
    choices.fill("data.flip", not grey_and_small, "may be characters" if grey_and_small else "the paper's")
    if not look.in_memory:
        workers, reason = max(1, min(16, cores - 1)), f"files to decode, {machine.cores} cores"
    elif machine.accelerated:
        workers, reason = max(1, min(4, cores - 1)), "images in memory, beside an accelerator"
    else:
        workers, reason = 0, "images in memory"
    if look.stream_shards and isinstance(data, Streamed):
        lanes = choices.fill(
            "data.lanes", choose_lanes(look.stream_shards, devices), f"{look.stream_shards} shards to train on"
        )
        workers, reason = (
            largest_divisor(max(1, lanes), workers),
            f"a divisor of the {lanes} lanes, {machine.cores} cores",
        )
    choices.fill("data.num_workers", workers, reason)
