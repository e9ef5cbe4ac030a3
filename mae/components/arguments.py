"""What a class can be told: its keyword arguments, with types, defaults and a line of help each."""

from __future__ import annotations

import inspect
import re
import types
from dataclasses import dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

SCALARS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
MISSING = inspect.Parameter.empty
"""The default of an argument that must be given."""


@dataclass(frozen=True)
class Argument:
    """A keyword argument of a class.

    Attributes:
        name: As in the signature.
        annotation: Its type; ``Any`` where the signature gives none.
        default: ``MISSING`` where it must be given.
        help: What the docstring's section ``Args`` says of it, in one line.
    """

    name: str
    annotation: Any
    default: Any
    help: str

    def check(self, value: Any, key: str) -> None:
        """Raise a ValueError where a value is not of this type; ``key`` is what the user calls the argument."""
        if self.annotation is Any or (value is None and self.default is None):
            return
        try:
            # 1 is a float, "1" is no number and 1 no bool; but YAML has no tuples or paths of its own.
            TypeAdapter(self.annotation, config={"arbitrary_types_allowed": True}).validate_python(
                value, strict=_is_scalar(self.annotation)
            )
        except ValidationError as error:
            raise ValueError(f"{key}={value!r} is not {_in_words(self.annotation, error)}") from None


def arguments(kind: type) -> list[Argument]:
    """Return the keyword-only arguments of a class, and those that may be given by keyword and have a default."""
    signature = inspect.signature(kind)
    hints = _hints(kind)
    helps = _helps(kind)
    chosen = [
        parameter
        for parameter in signature.parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
        or (parameter.kind is parameter.POSITIONAL_OR_KEYWORD and parameter.default is not MISSING)
    ]
    return [Argument(part.name, hints.get(part.name, Any), part.default, helps.get(part.name, "")) for part in chosen]


def takes_anything(kind: type) -> bool:
    """Whether a class has ``**arguments``, so that no name is wrong."""
    return any(part.kind is part.VAR_KEYWORD for part in inspect.signature(kind).parameters.values())


def _hints(kind: type) -> dict[str, Any]:
    try:
        return get_type_hints(kind.__init__)  # type: ignore[misc]
    except (NameError, TypeError):  # a name that is imported for type checkers alone
        return {}


def _helps(kind: type) -> dict[str, str]:
    """Return the lines of the section ``Args`` of a Google docstring."""
    text = inspect.getdoc(kind) or ""
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)*)", text, flags=re.MULTILINE)
    if section is None:
        return {}
    body = inspect.cleandoc(section.group(1))
    parts = re.findall(r"^(\w+)(?: \([^)]*\))?:\s*(.*(?:\n[ \t]+.*)*)", body, flags=re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in parts}


def _is_scalar(annotation: Any) -> bool:
    """Whether values are numbers, truths or texts, or None."""
    parts = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    return all(part in (*SCALARS, type(None)) for part in parts)


def _in_words(annotation: Any, error: ValidationError) -> str:
    parts = [part for part in get_args(annotation) or (annotation,) if part is not type(None)]
    if _is_scalar(annotation):
        return " or ".join(SCALARS[part] for part in parts)
    return f"right: {error.errors()[0]['msg'].lower()}"
