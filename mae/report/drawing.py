"""The style of every drawing on a page."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = ("#9db8d9", "#1f4e8c", "#c8553d", "#5b8c5a")
# The salt and the missing date make the same drawing the same bytes.
STYLE = {
    "svg.hashsalt": "mae",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
}
OPEN = {"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True}


class Drawing:
    """A figure under the report's style; ``svg`` is there once the block has ended."""

    svg: str
    axes: Axes


@contextmanager
def drawing(width: float = 6.2, height: float = 3.1, *, framed: bool = False) -> Iterator[Drawing]:
    """Draw on ``axes`` within the block: curves over a grid, or a matrix in its frame; the size is in inches."""
    result = Drawing()
    with rc_context(STYLE if framed else STYLE | OPEN):
        figure = Figure(figsize=(width, height), layout="constrained")
        result.axes = figure.subplots()
        yield result
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    text = buffer.getvalue()
    result.svg = text[text.index("<svg") :]
