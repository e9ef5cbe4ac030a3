"""Columns of text that are read on a narrow terminal, and searched line by line in a pipe."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.console import Console

WHOLE = 10**6
"""Width of a line in a pipe or a file, where nothing is broken."""


def print_columns(console: Console, rows: Sequence[tuple[Sequence[str], str | None]], indent: int = 2) -> None:
    """Print rows, each with its style; the last column is broken where it reaches the edge of a terminal.

    A first cell that would take more than two fifths of the width has a line of its own.
    """
    width = console.width if console.is_terminal else WHOLE
    *narrow, _ = zip(*(cells for cells, _ in rows), strict=True)
    widths = [max(map(len, column)) for column in narrow]
    widths[0] = min(widths[0], max(16, width * 2 // 5))
    for cells, style in rows:
        for line in _lines(cells, widths, width - 1, indent):
            console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


def _lines(cells: Sequence[str], widths: Sequence[int], width: int, indent: int) -> Iterator[str]:
    *narrow, last = cells
    if len(narrow[0]) > widths[0]:
        yield " " * indent + narrow[0]
        narrow[0] = ""
    start = " " * indent + "".join(f"{cell:{size}}  " for cell, size in zip(narrow, widths, strict=True))
    broken: Iterable[str] = textwrap.wrap(
        last, max(20, width - len(start)), break_long_words=False, break_on_hyphens=False
    ) or [""]
    for line in broken:
        yield f"{start}{line}".rstrip()
        start = " " * len(start)


def shown(value: Any) -> str:
    """Return a value as YAML writes it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)
