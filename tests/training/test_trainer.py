"""The trainer: batches shared out, devices counted, precision chosen."""

from __future__ import annotations

import pytest
import torch

from mae.training.trainer import chosen_precision, count_devices, has_accelerator, micro_batch

PLACE = {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto"}


@pytest.mark.parametrize(("batch", "devices", "accumulate"), [(64, 1, 1), (64, 2, 4), (6, 3, 2), (4096, 8, 4)])
def test_the_effective_batch_is_shared_out_whole(batch: int, devices: int, accumulate: int) -> None:
    assert micro_batch(batch, devices, accumulate) * devices * accumulate == batch


@pytest.mark.parametrize(("batch", "devices", "accumulate"), [(50, 1, 4), (3, 4, 1), (1, 2, 2), (100, 3, 2)])
def test_what_cannot_be_shared_out_is_refused_with_what_could(batch: int, devices: int, accumulate: int) -> None:
    with pytest.raises(ValueError, match=f"batch_size={batch}") as raised:
        micro_batch(batch, devices, accumulate)
    offered = int(str(raised.value).rsplit(": ", 1)[1].removesuffix(" would"))
    assert micro_batch(offered, devices, accumulate) >= 1
    assert abs(offered - batch) <= devices * accumulate


@pytest.mark.parametrize(
    ("devices", "count"), [(1, 1), (2, 2), ("2", 2), ("auto", 1)], ids=["number", "two", "text", "auto"]
)
def test_devices_are_counted_in_any_spelling(devices: int | str, count: int) -> None:
    assert count_devices({**PLACE, "devices": devices}) == count


def test_nodes_multiply_the_devices() -> None:
    assert count_devices({**PLACE, "devices": 2, "num_nodes": 3}) == 6


def test_precision_is_kept_where_it_is_given_and_full_on_a_cpu() -> None:
    assert chosen_precision("16-mixed", accelerated=True) == "16-mixed"
    assert chosen_precision("auto", accelerated=False) == "32-true"


def test_a_cpu_is_no_accelerator() -> None:
    assert not has_accelerator("cpu")
    assert has_accelerator("cuda")
    assert has_accelerator("auto") is torch.accelerator.is_available()
