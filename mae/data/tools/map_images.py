"""The same work on many images of a source, by several processes, with results in order."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, TypeVar

import torch

from mae.data.loading.batches import leave_signals
from mae.data.source import Source

AT_ONCE = 8
"""Images whose results travel together: enough to hide the way, few enough for memory where they are large."""
AHEAD = 2
"""Such parts that each worker may be ahead of what was taken: results that wait lie in memory."""

T = TypeVar("T")


def map_images(source: Source, indices: Sequence[int], work: Callable[[Source, int], T], workers: int) -> Iterator[T]:
    """Yield ``work(source, index)`` for each index, in their order.

    Args:
        source: Images; handed to each process once.
        indices: Of the images.
        work: A function that can be pickled, of which the results can, too; tensors would need shared memory.
        workers: Processes; 0 works in this one.

    Raises:
        ValueError: A process has died.
    """
    if workers == 0:
        yield from (work(source, index) for index in indices)
        return
    parts = (indices[start : start + AT_ONCE] for start in range(0, len(indices), AT_ONCE))
    # The start method is the one that torch's loaders take.
    context = multiprocessing.get_context()
    pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(source, work))
    try:
        running: deque[Future[list[T]]] = deque(pool.submit(_work, part) for part in islice(parts, AHEAD * workers))
        while running:
            results = running.popleft().result()
            running.extend(pool.submit(_work, part) for part in islice(parts, 1))
            yield from results
    except BrokenProcessPool:
        raise ValueError(
            f"one of {workers} worker processes has died, for lack of memory perhaps: try again with --workers "
            f"{workers // 2}"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


_given: list[Any] = []
"""In a worker process: the source, and the work on it."""


def _begin(source: Source, work: Callable[[Source, int], Any]) -> None:
    torch.set_num_threads(1)  # the processes share the cores already
    leave_signals(0)
    _given[:] = source, work


def _work(indices: Sequence[int]) -> list[Any]:
    source, work = _given
    return [work(source, index) for index in indices]
