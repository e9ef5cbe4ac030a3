"""Every key of a composed config, with what the schema or the class of a component says of it."""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from mae.components.arguments import MISSING
from mae.config.class_options import FILLED, component_arguments, component_names
from mae.config.schema.components import TARGET, Component
from mae.config.schema.fields import Group, chosen_by

WORDS = {int: "whole number", float: "number", bool: "true, false", str: "text", type(None): "null"}
BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
OWN_CLASS = "a class of your own, package.module.Class, in place of a name"


@dataclass(frozen=True)
class Key:
    """A key of a config.

    Attributes:
        name: Dotted.
        value: What stands there.
        kind: Its type, with range or choices, in words.
        help: A line of what it means.
        filled_by: What fills its null; None where nothing does.
    """

    name: str
    value: Any
    kind: str
    help: str
    filled_by: str | None


def keys_of(config: Group, prefix: str = "") -> Iterator[Key]:
    """Return every key of a config, in the order of the schema; of components also the arguments that are not given."""
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, Component):
            yield from _component_keys(f"{prefix}{name}", value)
        elif isinstance(value, Group):
            yield from keys_of(value, f"{prefix}{name}.")
        else:
            yield Key(f"{prefix}{name}", value, kind_of(field), field.description or "", chosen_by(field))


def kind_of(field: FieldInfo) -> str:
    """Return the type of a key in words, such as ``whole number >= 1``."""
    bounds = " and ".join(
        f"{sign} {getattr(part, name):g}"
        for part in field.metadata
        for name, sign in BOUNDS.items()
        if getattr(part, name, None) is not None
    )
    words = in_words(field.annotation)
    plain = words.removesuffix(" or null")
    return f"{plain} {bounds}{words.removeprefix(plain)}" if bounds else words


def in_words(annotation: Any) -> str:
    """Return a type in words."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if annotation in WORDS:
        return WORDS[annotation]
    if origin is Literal:
        return ", ".join(map(str, parts))
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(in_words(part) for part in parts))
    if origin is list:
        return f"list of {in_words(parts[0])}s" if parts else "list"
    if hasattr(annotation, "__metadata__"):
        return in_words(parts[0])
    if origin is not None:
        return in_words(origin)
    return {"dict": "mapping", "Mapping": "mapping", "Any": "anything"}.get(
        getattr(annotation, "__name__", ""), str(annotation)
    )


def _component_keys(group: str, part: Component) -> Iterator[Key]:
    if part.class_path is None or part.name is not None:
        filled = FILLED[group] if group == "model" else None
        yield Key(f"{group}.name", part.name, "text", f"the class: {component_names(group)}", filled)
    if part.class_path is not None:
        yield Key(f"{group}.{TARGET}", part.class_path, "text", OWN_CLASS, None)
    known = {argument.name: argument for argument in component_arguments(group, part.name, part.class_path)}
    for name in [*part.options, *(name for name in known if name not in part.options)]:
        argument = known.get(name)
        default = None if argument is None or argument.default is MISSING else argument.default
        yield Key(
            f"{group}.{name}",
            part.options.get(name, default),
            in_words(argument.annotation) if argument else "anything",
            argument.help.replace("``", "").replace("None ", "null ").removesuffix(".") if argument else "",
            FILLED.get(group) if name in part.options and part.options[name] is None else None,
        )
