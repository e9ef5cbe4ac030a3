"""Tables on the console."""

from __future__ import annotations

import io

from rich.console import Console

from mae.report.tables import Row, Table, print_table


def test_brackets_of_users_are_shown_as_they_were_typed() -> None:
    shown = io.StringIO()
    typed = "options={mask_unit_attn:[true,false]} [bold]"
    table = Table(
        "runs/[a]", ("overrides [x]", "top1"), [Row((typed, "1.0")), Row((typed, "2.0"), ours=True)], "of [green]"
    )
    print_table(Console(file=shown, width=120), table)
    text = shown.getvalue()
    assert text.count(typed) == 2
    assert all(part in text for part in ("runs/[a]", "overrides [x]", "of [green]"))
