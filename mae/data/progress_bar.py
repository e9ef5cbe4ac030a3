"""Work over many images, with_progress: a bar where a person looks on, a line now and then elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

AFTER_SECONDS = 1.0  # what is done sooner needs no bar
LINE_SECONDS = 20.0  # between lines where the output is no terminal

T = TypeVar("T")


def with_progress(items: Iterable[T], total: int | None, what: str, unit: str = "images", done: int = 0) -> Iterator[T]:
    """Yield the items, and show how far they are, how many a second, and the time left.

    Args:
        items: Those that are still to be done.
        total: How many there are, the done ones among them; None where nobody knows.
        what: In words, such as "packing train".
        unit: What an item is.
        done: Those that were done before.
    """
    terminal = sys.stderr.isatty()  # the results alone go to the standard output
    yield from tqdm(
        items,
        what,
        total,
        initial=done,
        unit=f" {unit}",
        file=sys.stderr if terminal else _Lines(),
        ncols=None if terminal else 100,
        dynamic_ncols=terminal,
        leave=not terminal,
        delay=AFTER_SECONDS if terminal else LINE_SECONDS,
        mininterval=0.1 if terminal else LINE_SECONDS,
        miniters=1,  # what tqdm would choose may be too many where images become larger on the way
        disable=os.environ.get("LOCAL_RANK", "0") != "0",  # one of a machine's processes speaks for all
    )


class _Lines:
    """Takes the states of a bar, each of which is to overwrite the one before, as lines of the standard error."""

    def write(self, state: str) -> None:
        if state := state.strip():
            print(state, file=sys.stderr, flush=True)

    def flush(self) -> None:
        """Do nothing: each line is written at once."""
