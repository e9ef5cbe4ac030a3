"""What a wrong override is called: one line that names the nearest key, group or option."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mae.config.reading import leaves
from mae.config.schema.training import RETIRED

Compose = Callable[[Sequence[str]], Mapping[str, Any]]
"""Overrides to plain values; raises a ValueError."""


@dataclass(frozen=True)
class Override:
    """A parsed override.

    Attributes:
        text: As it was given.
        key: A dotted key, or a group.
        value: As a text.
        kind: ``set``, ``add`` (+), ``delete`` (~) or ``sweep``.
    """

    text: str
    key: str
    value: str
    kind: str


def nearest(wanted: str, known: Sequence[str]) -> str:
    """Return a hint that names the nearest of what is known, or all of it."""
    # A slip of the hand, then a right name in the wrong group, such as lr for optim.base_lr, then whatever is nearest.
    alike = [name for name in known if wanted.rpartition(".")[2] in name.rpartition(".")[2]]
    near = (
        difflib.get_close_matches(wanted, known, n=1, cutoff=0.8)
        or difflib.get_close_matches(wanted, alike, n=1, cutoff=0)
        or difflib.get_close_matches(wanted, known, n=1, cutoff=0.5)
    )
    return f"did you mean {near[0]}?" if near else f"choose one of {', '.join(known)}"


class Groups:
    """The config groups and their options, over all folders of configs.

    Args:
        folders: The package's, then the user's.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = folders

    @property
    def names(self) -> list[str]:
        """The groups."""
        return sorted({entry.name for folder in self.folders for entry in folder.iterdir() if entry.is_dir()})

    def files(self, group: str) -> dict[str, Path]:
        """Return the options of a group with their files; what begins with _ is shared by options, and none itself."""
        found = [path for folder in self.folders for path in (folder / group).glob("*.yaml")]
        return {path.stem: path for path in sorted(found, key=lambda path: path.stem) if not path.stem.startswith("_")}

    def options(self, group: str) -> list[str]:
        """Return the options of a group."""
        return list(self.files(group))


def explain_mistake(overrides: Sequence[Override], groups: Groups, compose: Compose) -> str | None:
    """Return what is wrong with overrides that Hydra refused; None where only Hydra knows."""
    chosen = [override.text for override in overrides if override.key in groups.names]
    for override in overrides:
        key = override.key
        if override.kind == "sweep":
            quoted = f"{key}=\"'a,b'\""
            return f"{override.text} is several values: -m sweeps over them, and a comma inside a value is quoted, {quoted}"
        if key.startswith("hydra") or override.kind == "delete":
            continue
        if key in RETIRED:
            return f"{key} is no option any more, leave it out: {RETIRED[key]}"
        if key in groups.names:
            options = groups.options(key)
            if override.value not in options:
                return f"{key}={override.value} does not exist: {nearest(override.value, options)}"
            continue
        try:  # a group option may bring keys that the defaults have not
            known = leaves(compose(chosen))
        except ValueError:
            known = leaves(compose([]))
        if key.startswith("model.options.") and override.kind != "add":
            return f"{key} is an argument of the timm model, added by a plus sign: +{override.text}"
        if key not in known and not any(name.startswith(f"{key}.") for name in known):
            hint = _owner(key, groups, compose) or nearest(key, [*known, *groups.names])
            return f"{key} is not an option here: {hint}"
    return _misplaced(overrides)


def _misplaced(overrides: Sequence[Override]) -> str | None:
    """Return what to say of a group that only some protocols have."""
    for override in overrides:
        if override.key == "augmentation":
            return (
                f"{override.text} changes the images of a fine-tuning: it goes with protocol=finetune and "
                f"protocol=partial_finetune alone, so leave it out"
            )
    return None


def _owner(key: str, groups: Groups, compose: Compose) -> str | None:
    """Return a hint where the key exists under another option of its group, such as data.root under data=folder."""
    group = key.partition(".")[0]
    owners = []
    files = groups.files(group) if group in groups.names else {}
    for option in (option for option, path in files.items() if _mentions(path, key.rpartition(".")[2])):
        try:
            if key in leaves(compose([f"{group}={option}"])):
                owners.append(option)
        except ValueError:
            continue
    return f"it belongs to {group}={' or '.join(owners[:3])}, so give that too" if owners else None


def _mentions(path: Path, leaf: str) -> bool:
    """Whether an option's file, or one of its group that it names, may set a key: composing each option would take a second."""
    text = path.read_text(encoding="utf-8")
    return f"{leaf}:" in text or any(
        other.stem in text and f"{leaf}:" in other.read_text(encoding="utf-8")
        for other in path.parent.glob("*.yaml")
        if other != path
    )
