"""The command that repeats a run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

PLACES = ("run_dir", "resume")
"""Where a run was and whether it went on: a run that repeats it has its own folder, and begins at the beginning."""
CONFIG_FOLDER = ("--config-dir", "-cd")
"""Hydra's flag for a folder of a user's own configs, which the overrides may name."""


def rerun_command(command: Sequence[str], script: str, overrides: Sequence[str], folder: Path) -> str:
    """Return what a shell takes to repeat a run, whatever started it: a script, the ``mae`` command, a sweep or a notebook.

    Args:
        command: ``sys.argv`` of the process that ran it. It does not hold the overrides of one run of a sweep.
        script: ``pretrain`` or ``finetune``.
        overrides: Of this very run, as Hydra takes them.
        folder: The run's; the command names a free one beside it.
    """
    began_by_script = bool(command) and Path(command[0]).name == f"train_{script}.py"
    start = ["python", command[0]] if began_by_script else ["mae", script]
    kept = [text for text in overrides if text.lstrip("+").partition("=")[0] not in PLACES]
    return shlex.join([*start, *_config_folder(command), *kept, override("run_dir", str(free_folder(folder)))])


def free_folder(folder: Path) -> Path:
    """Return a folder beside a run that does not exist."""
    free, number = folder.with_name(f"{folder.name}_again"), 2
    while free.exists():
        free, number = folder.with_name(f"{folder.name}_again_{number}"), number + 1
    return free


def override(key: str, value: str) -> str:
    """Return a Hydra override of a text, quoted where Hydra would read it otherwise."""
    plain = re.fullmatch(r"(\.{0,2}/|[A-Za-z])[\w./-]*", value, re.ASCII)
    if plain and value.lower() not in ("null", "true", "false", "nan", "inf", "infinity"):
        return f"{key}={value}"
    # Backslashes count only before a quote, and the last stands before one.
    inside = re.sub(r"(\\*)'", r"\1\1\\'", value)
    ending = re.search(r"\\*$", inside)
    assert ending is not None, "the pattern matches nothing too"
    return f"{key}='{inside}{ending.group()}'"


def _config_folder(command: Sequence[str]) -> list[str]:
    for number, word in enumerate(command):
        flag, _, value = word.partition("=")
        if flag in CONFIG_FOLDER:
            return [CONFIG_FOLDER[0], value or (command[number + 1] if number + 1 < len(command) else "")]
    return []
