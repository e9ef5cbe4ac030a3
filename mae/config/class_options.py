"""The keys of ``model``, ``masking``, ``decoder`` and ``objective``: the arguments of the class that each of them names.

An override may give an argument that no file lists, or a class of the user's own by its path.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mae.components.arguments import Argument, arguments, takes_anything
from mae.components.registry import Registry
from mae.config.mistakes import nearest
from mae.config.schema.components import TARGET

GROUPS = ("model", "masking", "decoder", "objective")
FILLED = {"model": "the images and the machine", "decoder": "the encoder's width"}
"""What fills the nulls of a group's options."""
WITHOUT_CLASS = ("linear",)
"""Decoders that are a layer of the objective itself, and have no options."""
RESERVED = ("name", "image_size", "in_channels", "drop_path")
"""Arguments of backbones that are keys of other groups."""
ANY_VIT = "vit_tiny_patch16_224"
ADDED = tuple(f"{group}." for group in GROUPS)
"""Where keys are added that the option's file has not: arguments of a class."""


def class_options_mistakes(values: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the options of every component of a config of plain values."""
    found: list[str] = []
    for group in GROUPS:
        part = values.get(group)
        if isinstance(part, Mapping):
            try:
                found += _mistakes(group, part)
            except ValueError as error:  # there is no such class
                found.append(str(error))
    return found


def component_class(group: str, name: str | None, target: str | None) -> type | None:
    """Return the class that a component names; None where it names none, or one without options.

    Raises:
        ValueError: There is no such class.
    """
    if target is None and name is None and group == "model":
        name = ANY_VIT  # which ViT it will be is not known yet
    if target is None and (name is None or name in WITHOUT_CLASS):
        return None
    return _resolve(group, name, target)


def component_arguments(group: str, name: str | None, target: str | None) -> list[Argument]:
    """Return the options of the class that a component names."""
    kind = component_class(group, name, target)
    return [argument for argument in arguments(kind) if argument.name not in RESERVED] if kind else []


def adding(overrides: Sequence[str]) -> list[str]:
    """Return the overrides as Hydra takes them: arguments of a component's class may be such that no file lists."""
    return [f"++{text.lstrip('+')}" if text.lstrip("+").startswith(ADDED) else text for text in overrides]


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


def _mistakes(group: str, part: Mapping[str, Any]) -> Iterator[str]:
    name, target = part.get("name"), part.get(TARGET)
    kind = component_class(group, name, target)
    if kind is None:
        return
    known = {argument.name: argument for argument in component_arguments(group, name, target)}
    for key, value in part.items():
        if key in ("name", TARGET):
            continue
        if key not in known:
            if takes_anything(kind) or (group == "model" and (value is None or value == {} or key == "positions")):
                continue  # the group `model` has the keys of a ViT, empty
            hint = nearest(f"{group}.{key}", [f"{group}.{option}" for option in known]) if known else "it has none"
            yield f"{group}.{key}={value} is not an option of {group}={target or name}: {hint}"
        elif value is not None or group not in FILLED:
            try:
                known[key].check(value, f"{group}.{key}")
            except ValueError as error:
                yield f"{group}.{key}=null is not a value, and nothing chooses one" if value is None else str(error)


def component_names(group: str) -> str:
    """Return the names of a group's classes, in words."""
    if group == "model":
        from mae.models.backbones.create_backbone import BACKBONES

        return f"any ViT or convolutional network of timm, or {', '.join(BACKBONES)}"
    own = WITHOUT_CLASS if group == "decoder" else ()
    return ", ".join((*_registry(group), *own))


def _registry(group: str) -> Registry[Any]:
    # Torch is not needed by those who only ask for keys.
    if group == "masking":
        from mae.masking.samplers import MASKINGS

        return MASKINGS
    if group == "decoder":
        from mae.models.decoders import DECODERS

        return DECODERS
    from mae.objectives.objective import OBJECTIVES

    return OBJECTIVES


@functools.cache
def _resolve(group: str, name: str | None, target: str | None) -> type:
    if group != "model":
        return _registry(group).resolve(name, target)
    from mae.models.backbones.create_backbone import BACKBONES, backbone_class
    from mae.models.backbones.encoder import Encoder

    if target is None and name is not None and name.startswith("vit_") and name not in BACKBONES:
        return Encoder  # what timm calls so is one; whether timm knows it is seen when it is built
    return backbone_class(name, target)
