"""Tables of results: on a page, on the console, and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table as ConsoleTable
from rich.text import Text


@dataclass(frozen=True)
class Row:
    """Cells of a table, and whether they are the line to look at."""

    cells: Sequence[str]
    ours: bool = False


@dataclass(frozen=True)
class Table:
    """A table of results; numbers stand right, names left.

    Attributes:
        title: Above it.
        head: Names of the columns.
        rows: As many cells as columns.
        note: Below it.
        names: How many of the first columns are names.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Row]
    note: str = ""
    names: int = 1


def print_table(console: Console, table: Table) -> None:
    """Show a table on the console; brackets in what users typed, such as overrides, are no markup."""
    shown = ConsoleTable(title=Text(table.title), title_justify="left", title_style="bold")
    for number, head in enumerate(table.head):
        shown.add_column(Text(head), justify="left" if number < table.names else "right", overflow="fold")
    for row in table.rows:
        shown.add_row(*map(Text, row.cells), style="bold green" if row.ours else None)
    console.print(shown)
    if table.note:
        console.print(table.note, style="dim", highlight=False, markup=False)


def to_markdown(table: Table) -> str:
    """Return a table as GitHub's Markdown; the rows to look at are bold."""
    rule = ["---" if number < table.names else "---:" for number in range(len(table.head))]
    rows = [[f"**{cell}**" if row.ours and cell else cell for cell in row.cells] for row in table.rows]
    lines = ["| " + " | ".join(_escaped(cell) for cell in cells) + " |" for cells in (table.head, rule, *rows)]
    return "\n".join([f"### {table.title}", "", *lines, *(["", table.note] if table.note else []), ""])


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")
