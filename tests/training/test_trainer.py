"""The trainer: batches shared out, devices counted."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mae.training.trainer import Placement, count_devices, micro_batch

PLACE = Placement("cpu", 1, 1, "auto")
few = st.integers(1, 8)


@given(st.integers(1, 512), few, few)
def test_a_batch_is_shared_out_whole_or_refused_with_the_nearest_that_is(
    batch: int, devices: int, accumulate: int
) -> None:
    shares = devices * accumulate
    if batch % shares == 0:
        assert micro_batch(batch, devices, accumulate) * shares == batch
        return
    with pytest.raises(ValueError, match=f"batch_size={batch}") as raised:
        micro_batch(batch, devices, accumulate)
    offered = int(str(raised.value).rsplit(": ", 1)[1].removesuffix(" would"))
    assert micro_batch(offered, devices, accumulate) >= 1
    assert abs(offered - batch) <= shares


def test_devices_are_counted_in_any_spelling_and_over_all_nodes() -> None:
    spellings = {1: 1, 2: 2, "2": 2, "auto": 1}
    assert {given: count_devices(replace(PLACE, devices=given)) for given in spellings} == spellings
    assert count_devices(replace(PLACE, devices=2, num_nodes=3)) == 6


def test_devices_that_are_not_there_are_one_line() -> None:
    with pytest.raises(ValueError, match=r"no trainer for trainer\.accelerator=tpu"):
        count_devices(replace(PLACE, accelerator="tpu"))
