"""Plain values to a typed config; what is wrong with them is one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from mae.config.schema.roots import FinetuneConfig, PretrainConfig, RunConfig
from mae.config.schema.training import RETIRED

ROOTS: dict[str, type[RunConfig]] = {"pretrain": PretrainConfig, "finetune": FinetuneConfig}

C = TypeVar("C", bound=RunConfig)


def read_config(kind: type[C], values: Mapping[str, Any]) -> C:
    """Return the config of plain values.

    Raises:
        ValueError: Values are of a wrong type, out of range or unknown; the message names all of them.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ValueError("; ".join(dict.fromkeys(map(_in_words, error.errors(include_url=False))))) from None


def leaves(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings to dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= leaves(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


KINDS = {
    "int_type": "not a whole number",
    "int_from_float": "not a whole number",
    "float_type": "not a number",
    "finite_number": "not a finite number",
    "bool_type": "neither true nor false",
    "string_type": "not a text",
    "list_type": "not a list",
}
BOUNDS = {
    "greater_than_equal": ("less than", "ge"),
    "greater_than": ("not above", "gt"),
    "less_than_equal": ("more than", "le"),
    "less_than": ("not below", "lt"),
}


def _in_words(error: ErrorDetails) -> str:
    """Return one error in words."""
    key, value, kind, context = _key(error), error["input"], error["type"], error.get("ctx", {})
    if kind == "missing":
        return f"{key} is missing"
    if kind == "extra_forbidden":
        if key in RETIRED:
            return f"{key} is no option any more, leave it out: {RETIRED[key]}"
        return f"{key} is not an option here"
    if value is None:
        return f"{key}=null is not a value, and nothing chooses one"
    if key == "data.image_size":
        return f"{key}={value} is neither a side nor [height, width] in pixels"
    if kind in ("literal_error", "union_tag_invalid"):
        choices = str(context.get("expected") or context.get("expected_tags")).replace("'", "").replace(" or ", ", ")
        tag = str(context.get("discriminator", "")).strip("'")
        if tag:
            key, value = f"{key}.{tag}", context["tag"]
        return f"{key}={value!r} is unknown: choose one of {choices}"
    if kind in BOUNDS:
        words, bound = BOUNDS[kind]
        return f"{key}={value} is {words} {context[bound]:g}"
    if kind in ("too_short", "too_long"):
        return f"{key}={value} has {context['actual_length']} values: give {context.get('min_length', context.get('max_length'))}"
    shown = repr(value) if isinstance(value, str) else value
    return f"{key}={shown} is {KINDS.get(kind, error['msg'].lower())}"


def _key(error: ErrorDetails) -> str:
    """Return the dotted key of an error; pydantic names the chosen option of a union and the parts of a list, too."""
    first, *rest = (str(part) for part in error["loc"])
    if first in ("data", "logger", "protocol", "task") and rest:
        rest = rest[1:]
    return ".".join([first, *rest[:1]])
