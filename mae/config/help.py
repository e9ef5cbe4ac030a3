"""What ``--help`` of the scripts shows: examples, groups with their options, and every key."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from mae.config.columns import print_columns, shown
from mae.config.composing import OTHER_STAGE, check, compose_values, config_folder, folders
from mae.config.keys import Key, keys_of
from mae.config.mistakes import Groups

NOTES = {
    "--explain": "what a run would have: each key, its value, who chose it and why; nothing is run or written",
    "--config-dir DIR": "options of your own, DIR/GROUP/OPTION.yaml, whose classes (_target_) may lie in DIR",
    "-m": "a run for each of several values: seed=0,1,2",
    "--cfg job": "the composed config, as YAML",
}
"""What is no override. Those of Hydra are the scripts' alone."""


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
    print_columns(console, [(cells, None) for cells in examples(root)])
    say("")
    print_columns(console, [(cells, None) for cells in NOTES.items()])
    groups = Groups(folders(config_dir))
    for group in (name for name in groups.names if name not in OTHER_STAGE[root]):
        lines = {option: first_sentence(path) for option, path in groups.files(group).items()}
        if group == "experiment":
            start = f"python train_{root}.py experiment="
            lines = {
                option: "; ".join(re.split(" {2,}", line.removeprefix(f"{start}{option}").strip()))
                for option, line in lines.items()
                if line.startswith(start)
            }
        say(f"\n{group}=", "bold")
        print_columns(console, [(cells, None) for cells in lines.items()])
    given = f" with {' '.join(overrides)}" if overrides else ""
    say(f"\nEvery key{given}, as it is without an override, and what it may be:", "bold")
    print_columns(console, [((f"{key.name}={shown(key.value)}", meaning(key)), None) for key in keys_of(config)])


def meaning(key: Key) -> str:
    """Return what a key means, what it may be, and what fills its null."""
    filled = f"; null: chosen by {key.filled_by}" if key.filled_by else ""
    return f"{key.help} [{key.kind.removesuffix(' or null') if filled else key.kind}{filled}]"


def examples(root: str) -> list[tuple[str, str]]:
    """Return the commands that the root's file opens with, and what each does."""
    lines = (config_folder() / f"{root}.yaml").read_text(encoding="utf-8").splitlines()
    cut = (re.split(" {2,}", line.removeprefix("# "), maxsplit=1) for line in lines if line.startswith("# python "))
    return [(command, "".join(rest)) for command, *rest in cut]


def first_sentence(path: Path) -> str:
    """Return the first sentence of the comment that opens an option's file; an experiment's is the line of its command."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if "@package" not in line]
    comment = [line.removeprefix("#").strip() for line in itertools.takewhile(lambda line: line.startswith("#"), lines)]
    if comment and comment[0].startswith("python "):
        return comment[0]
    return re.split(r"(?<=[.:]) (?=[A-Z])", " ".join(comment), maxsplit=1)[0]
