"""Work on many images, by processes."""

from __future__ import annotations

import os
import signal
from functools import partial
from itertools import islice

import pytest
import torch

from mae.data.source import Source
from mae.data.sources.bundled import TensorSource
from mae.data.tools.map_images import AHEAD, AT_ONCE, map_images

SOURCE = TensorSource(torch.arange(100, dtype=torch.uint8).view(-1, 1, 1, 1), None, ())


def pixel(source: Source, index: int) -> int:
    return int(source.image(index).item())


def process(source: Source, index: int) -> int:
    return os.getpid()


def fails(source: Source, index: int, at: int) -> int:
    if index == at:
        raise ValueError(f"image {index} is wrong")
    return index


def dies(source: Source, index: int) -> int:
    if index == 20:
        os.kill(os.getpid(), signal.SIGKILL)
    return index


@pytest.mark.parametrize("workers", [0, 2])
def test_results_come_in_the_order_of_the_indices(workers: int) -> None:
    indices = [*range(50, 99), 3, 3, 0]
    assert list(map_images(SOURCE, indices, pixel, workers)) == indices
    assert list(map_images(SOURCE, [], pixel, workers)) == []


def test_processes_are_as_many_as_asked_for_at_most() -> None:
    assert set(map_images(SOURCE, range(10), process, 0)) == {os.getpid()}
    used = set(map_images(SOURCE, range(100), process, 2))
    assert os.getpid() not in used
    assert len(used) <= 2


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_comes_in_its_turn_as_it_was_raised(workers: int) -> None:
    results = map_images(SOURCE, range(40), partial(fails, at=17), workers)
    assert list(islice(results, 16)) == list(range(16))
    with pytest.raises(ValueError, match=r"^image 17 is wrong$"):
        list(results)


def test_workers_are_ahead_by_few_images() -> None:
    class Counted(list[int]):
        taken = 0

        def __getitem__(self, key: slice) -> list[int]:  # type: ignore[override]
            self.taken += 1
            return list(self)[key]

    indices = Counted(range(1000))
    results = map_images(SOURCE, indices, fails_never, 2)
    next(results)
    assert indices.taken <= AHEAD * 2 + 1
    assert AHEAD * 2 * AT_ONCE < 100
    results.close()  # type: ignore[attr-defined]


def fails_never(source: Source, index: int) -> int:
    return index


def test_a_process_that_dies_is_one_line() -> None:
    with pytest.raises(ValueError, match=r"one of 2 worker processes has died.*try again with --workers 1") as raised:
        list(map_images(SOURCE, range(60), dies, 2))
    assert "\n" not in str(raised.value)
