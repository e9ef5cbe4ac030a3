"""Who chose each value of a run, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from mae.config.choices import Choice
from mae.config.columns import print_columns, shown
from mae.config.composing import compose_values, folders
from mae.config.keys import Key, keys_of
from mae.config.mistakes import Groups
from mae.config.reading import leaves
from mae.config.schema.roots import RunConfig


@dataclass(frozen=True)
class Explained:
    """A key of a run.

    Attributes:
        key: Dotted.
        value: What the run has.
        default: What stands there without overrides; None also where there is no such key then.
        by: ``you``, ``experiment``, ``config file``, ``chosen``, ``checkpoint`` or ``default``.
        why: The reason of the choice, or what the key means.
    """

    key: str
    value: Any
    default: Any
    by: str
    why: str


class Sources:
    """Where values come from: the overrides, one by one.

    Args:
        root: ``pretrain`` or ``finetune``.
        overrides: As given.
        config_dir: Of the user's own options.
    """

    def __init__(self, root: str, overrides: Sequence[str], config_dir: Path | None) -> None:
        pairs = [text.lstrip("+~").partition("=")[::2] for text in overrides]
        groups = Groups(folders(config_dir)).names
        self.defaults = leaves(compose_values(root))
        self.composed = leaves(compose_values(root, overrides, config_dir))
        self.given = [key for key, _ in pairs if key not in groups]
        self.options = {key: f"{key}={value}" for key, value in pairs if key in groups and key != "experiment"}
        self.experiment = next((f"experiment={value}" for key, value in pairs if key == "experiment"), None)
        recipe = leaves(compose_values(root, [self.experiment], config_dir)) if self.experiment else {}
        self.recipe = {key: value for key, value in recipe.items() if value != self.defaults.get(key)}

    def of(self, key: str) -> tuple[str, str | None]:
        """Return who gave a value that was composed, and by what."""
        if any(key == given or key.startswith(f"{given}.") for given in self.given):
            return "you", None
        if self.composed.get(key) == self.recipe.get(key, self) and self.experiment:
            return "experiment", self.experiment
        group = key.partition(".")[0]
        if group in self.options and "." in key:
            return "config file", self.options[group]
        if self.composed.get(key) != self.defaults.get(key):
            return "config file", " ".join(self.options.values()) or None
        return "default", None


def explain(
    config: RunConfig, made: Sequence[Choice], root: str, overrides: Sequence[str], config_dir: Path | None = None
) -> list[Explained]:
    """Return every key of a prepared run.

    Args:
        config: Completed by choices.
        made: These choices.
        root: ``pretrain`` or ``finetune``.
        overrides: As given.
        config_dir: Of the user's own options.
    """
    sources = Sources(root, overrides, config_dir)
    reasons = {choice.key: choice.reason for choice in made}
    present = leaves(config.plain())
    return [_explained(key, sources, reasons, config) for key in keys_of(config) if key.name in present]


def _explained(key: Key, sources: Sources, reasons: dict[str, str], config: RunConfig) -> Explained:
    by, what = sources.of(key.name)
    why = f"{what}: {key.help}" if what else key.help
    before = sources.composed.get(key.name)
    reason = reasons.get(key.name) or (reasons.get(key.name.partition(".")[0]) if before is None else None)
    if key.value != before and by != "you":
        if config.resume and reason is None:
            by, why = "config file", f"of the run that goes on: {key.help}"
        else:
            by = "checkpoint" if reason and "checkpoint's" in reason else "chosen"
            why = reason or (f"by {key.filled_by}" if key.filled_by else key.help)
    elif key.value is None and "null" not in why:
        why = f"{why}; null: {f'not needed here, else by {key.filled_by}' if key.filled_by else 'none'}"
    return Explained(key.name, key.value, sources.defaults.get(key.name), by, why)


def print_explanation(rows: Sequence[Explained], console: Console) -> None:
    """Print a line for each key: its value, who chose it, why, and its default where that is another."""
    styles = {"default": "dim", "you": "bold", "experiment": "bold"}
    head: tuple[Sequence[str], str | None] = (("key=value", "by", "why"), "bold")
    print_columns(console, [head, *((_cells(row), styles.get(row.by)) for row in rows)], indent=0)


def _cells(row: Explained) -> tuple[str, str, str]:
    # What is chosen is null by default.
    default = f" (default: {shown(row.default)})" if row.by != "chosen" and row.default != row.value else ""
    return f"{row.key}={shown(row.value)}", row.by, f"{row.why}{default}"
