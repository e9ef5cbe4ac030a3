"""Overrides of components: arguments of a class that no file lists, and a class of the user's own by its path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mae.config.class_options import GROUPS, component_arguments
from mae.config.schema.components import TARGET

ADDED = tuple(f"{group}." for group in GROUPS)
"""Where keys are added that the option's file has not: arguments of a class."""


def adding(overrides: Sequence[str]) -> list[str]:
    """Return the overrides as Hydra takes them: arguments of a component's class may be such that no file lists."""
    return [
        f"++{text.lstrip('+')}" if text.lstrip("+").startswith(ADDED) and not text.startswith("~") else text
        for text in overrides
    ]


def as_typed(overrides: Sequence[str]) -> list[str]:
    """Return what ``adding`` was given, without the plus signs of components."""
    return [text.lstrip("+") if text.lstrip("+").startswith(ADDED) else text for text in overrides]


def own_classes(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return the values without the options of a named class where the overrides name another class in its place.

    Of a class by its path nothing stays but what is given with it; of one by its name also the options that both classes have. The
    group ``model`` keeps its own: they are those of a ViT, and any model may be named beside them.
    """
    keys = [text.partition("=")[0].lstrip("+") for text in overrides]
    for group in GROUPS:
        kept = {key.split(".")[1] for key in keys if key.startswith(f"{group}.")}
        if TARGET not in kept:
            if "name" not in kept or group == "model":
                continue
            try:
                kept |= {argument.name for argument in component_arguments(group, values[group]["name"], None)}
            except ValueError:  # there is no such class, as the check of the values will say
                continue
        values[group] = {key: value for key, value in values[group].items() if key in kept}
    return values
