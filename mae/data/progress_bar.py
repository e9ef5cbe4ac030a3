"""Work over many images, with_progress: a bar where a person looks on, a line now and then elsewhere."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

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
    console = Console(stderr=True)  # the results alone go to the standard output
    began = shown = time.perf_counter()
    bar: Progress | None = None
    first = os.environ.get("LOCAL_RANK", "0") == "0"  # one of a machine's processes speaks for all
    try:
        for count, item in enumerate(items, 1):
            yield item
            now = time.perf_counter()
            if not first or now - began < AFTER_SECONDS:
                continue
            pace = f"{count / (now - began):,.0f} {unit}/s"
            if console.is_terminal:
                if bar is None:
                    bar = _bar(console)
                    bar.add_task(what, total=total, pace=pace)
                    bar.start()
                bar.update(bar.task_ids[0], completed=done + count, pace=pace)
            elif now - shown >= LINE_SECONDS:
                shown = now
                console.print(
                    f"{what}  {_position(done + count, total, (now - began) / count)}  {pace}", highlight=False
                )
    finally:
        if bar is not None:
            bar.stop()


def _position(done: int, total: int | None, seconds: float) -> str:
    """Return how far it is, at so many seconds an item."""
    return f"{done:,}" if total is None else f"{done:,}/{total:,}  {seconds * (total - done) / 60:.0f} min left"


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[pace]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=console,
        transient=True,
    )
