"""What a stream is: shards that are shared out, and no access by number."""

from __future__ import annotations

import numpy as np
import pytest

from mae.data.streaming.stream import choose_readers, shards_held_out
from tests.data.streaming.streamed import (
    stream,
)


@pytest.mark.parametrize(
    ("shards", "world", "readers"), [(1, 1, 1), (7, 1, 4), (16, 1, 16), (100, 1, 16), (100, 8, 8), (3, 4, 0)]
)
def test_readers_are_a_power_of_two_that_the_shards_fill(shards: int, world: int, readers: int) -> None:
    assert choose_readers(shards, world) == readers


@pytest.mark.parametrize(
    ("given", "world", "workers", "message"),
    [
        (None, 9, 0, "8 shards to train on are fewer than the 9 devices: use trainer.devices=8"),
        (
            6,
            2,
            0,
            "data.lanes=6 wants 12 shards for 2 devices, and there are 8 to train on: choose data.lanes=4 or less",
        ),
        (
            None,
            1,
            3,
            "data.num_workers=3 does not divide data.lanes=8, the shards that are read side by side: choose",
        ),
        (None, 1, 16, "choose data.num_workers=0 or 1 or 2 or 4 or 8"),
    ],
)
def test_what_cannot_be_shared_out_is_refused(given: int | None, world: int, workers: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stream(readers=given).readers_for(world, workers)


def test_shards_are_held_out_whole() -> None:
    assert shards_held_out(np.full(100, 100.0)) == 10
    assert shards_held_out(np.full(100, 1000.0)) == 2  # 2,000 images are enough
    assert shards_held_out(np.full(3, 10_000.0)) == 1


def test_a_stream_gives_no_image_by_its_number() -> None:
    with pytest.raises(ValueError, match="none can be opened by its number"):
        stream().open(0)
