"""The same work on many images of a source, by several processes, with results in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from torch.utils.data import DataLoader, Dataset

from mae.data.source import Source

AT_ONCE = 8  # images whose results travel together: enough to hide the way, few enough for memory where they are large

T = TypeVar("T")


class _Worked(Dataset[T], Generic[T]):
    def __init__(self, source: Source, work: Callable[[Source, int], T]) -> None:
        self.source = source
        self.work = work

    def __getitem__(self, index: int) -> T:
        return self.work(self.source, index)


def map_images(source: Source, indices: Sequence[int], work: Callable[[Source, int], T], workers: int) -> Iterator[T]:
    """Yield ``work(source, index)`` for each index, in their order.

    Args:
        source: Images.
        indices: Of the images.
        work: A function that can be pickled, of which the results can, too; tensors would need shared memory.
        workers: Processes; 0 works in this one.
    """
    loader: DataLoader[Any] = DataLoader(
        _Worked(source, work), batch_size=AT_ONCE, sampler=indices, num_workers=workers, collate_fn=list
    )
    for results in loader:
        yield from results
