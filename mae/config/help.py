"""What ``--help`` of the scripts shows: examples, groups with their options, and every key."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mae.config.composing import check, compose_values, config_folder, folders
from mae.config.explain import fitting, shown
from mae.config.keys import keys_of
from mae.config.mistakes import Groups

NOTES = """\
--explain          what a run would have: each key, its value, who chose it and why; nothing is run or written
--config-dir DIR   options of your own, DIR/GROUP/OPTION.yaml, whose classes (_target_) may lie in DIR
-m                 a run for each of several values: seed=0,1,2
--cfg job          the composed config, as YAML"""


def print_help(root: str, overrides: Sequence[str], config_dir: Path | None, console: Console | None = None) -> None:
    """Print the help of a script; its keys are those of the config that the overrides compose.

    Raises:
        ValueError: An override is wrong.
    """
    console = console or Console()
    config = check(root, compose_values(root, overrides, config_dir))

    def say(text: str, style: str | None = None) -> None:
        console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    say(f"usage: python train_{root}.py [KEY=VALUE]... [GROUP=OPTION]...   or: mae {root} ...\n", "bold")
    say("\n".join(examples(root)))
    say(f"\n{NOTES}")
    say("\nGroups, and their options:", "bold")
    groups = Groups(folders(config_dir))
    table = Table(box=None, show_header=False, pad_edge=False)
    for group in groups_of(root, groups):
        lines = {option: first_comment(path) for option, path in groups.files(group).items()}
        if group == "experiment":
            lines = {option: line for option, line in lines.items() if f"train_{root}.py" in line}
        for number, (option, line) in enumerate(lines.items()):
            table.add_row("" if number else group, option, line)
    fitting(console, table).print(table, markup=False, highlight=False)
    given = f" with {' '.join(overrides)}" if overrides else ""
    say(f"\nKeys{given}; null is filled as the last column says:", "bold")
    table = Table("key", "default", "values", "meaning", "null", box=None, pad_edge=False, header_style="bold")
    for key in keys_of(config):
        table.add_row(key.name, shown(key.value), key.kind, key.help, key.filled_by or "")
    fitting(console, table).print(table, markup=False, highlight=False)


def examples(root: str) -> list[str]:
    """Return the commands that the root's file opens with."""
    lines = (config_folder() / f"{root}.yaml").read_text(encoding="utf-8").splitlines()
    return [line.removeprefix("# ") for line in lines if line.startswith("# python ")]


def groups_of(root: str, groups: Groups) -> list[str]:
    """Return the groups of a root."""
    second = {"protocol", "task", "augmentation"}
    first = {"masking", "decoder", "objective"}
    return [name for name in groups.names if name not in (second if root == "pretrain" else first)]


def first_comment(path: Path) -> str:
    """Return the first line of the comment of an option's file; an experiment's is its command."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comments = (line.removeprefix("#").strip() for line in lines if line.startswith("#") and "@package" not in line)
    return next(comments, "")
