"""From a root and overrides to a typed config. Beside the scripts' main, the one module that knows Hydra."""

from __future__ import annotations

import copy
import functools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mae.config.class_options import ADDED, GROUPS, adding, class_options_mistakes, own_classes
from mae.config.mistakes import Groups, Override, explain_mistake
from mae.config.reading import ROOTS, read_config
from mae.config.schema.roots import FinetuneConfig, PretrainConfig, RunConfig

OTHER_STAGE = {"pretrain": ("protocol", "task", "augmentation"), "finetune": ("masking", "decoder", "objective")}
"""Groups that a root has not."""


def config_folder() -> Path:
    """Return the folder of the recipes: inside an installed package, beside it in a clone."""
    package = Path(__file__).parent.parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


@overload
def compose(
    root: Literal["pretrain"], overrides: Sequence[str] = (), config_dir: Path | None = None
) -> PretrainConfig: ...
@overload
def compose(
    root: Literal["finetune"], overrides: Sequence[str] = (), config_dir: Path | None = None
) -> FinetuneConfig: ...
@overload
def compose(root: str, overrides: Sequence[str] = (), config_dir: Path | None = None) -> RunConfig: ...
def compose(root: str, overrides: Sequence[str] = (), config_dir: Path | None = None) -> RunConfig:
    """Compose a config from its root and overrides, and check its values.

    Args:
        root: ``pretrain`` or ``finetune``.
        overrides: As on the command line.
        config_dir: A folder of the user's own options, ``GROUP/OPTION.yaml``; modules in it can be imported.

    Raises:
        ValueError: An override names what does not exist, or a value is wrong.
    """
    return check(root, compose_values(root, overrides, config_dir))


def check(root: str, values: Mapping[str, Any]) -> RunConfig:
    """Return the typed config of plain values.

    Raises:
        ValueError: Values are wrong; the message names all of them.
    """
    wrong: list[str] = []
    config = None
    try:
        config = read_config(ROOTS[root], values)
    except ValueError as error:
        wrong.append(str(error))
    wrong += class_options_mistakes(values)
    if wrong or config is None:
        raise ValueError("; ".join(wrong))
    return config


def compose_values(root: str, overrides: Sequence[str] = (), config_dir: Path | None = None) -> dict[str, Any]:
    """Compose a config from its root (``pretrain`` or ``finetune``) and overrides, as plain values.

    Raises:
        ValueError: An override names what does not exist; the message names the nearest that does.
    """
    if config_dir is not None:
        use_folder(config_dir)
    parsed = [parse(text) for text in overrides]
    for override in parsed:
        if (group := override.key.partition(".")[0]) in OTHER_STAGE[root]:
            raise ValueError(f"{override.text} is not an option here: train_{root}.py has no {group}")
        if override.kind == "add" and not override.key.startswith((*ADDED, "hydra")):
            raise ValueError(
                f"{override.text} adds what nothing reads: only arguments of the classes of {', '.join(GROUPS)} are added"
            )
    given = tuple(adding(overrides))
    try:
        return own_classes(_composed(root, given, config_dir), overrides)
    except (HydraException, OmegaConfBaseException) as error:
        groups = Groups(folders(config_dir))

        def again(texts: Sequence[str]) -> dict[str, Any]:
            try:
                return _composed(root, tuple(texts), config_dir)
            except (HydraException, OmegaConfBaseException) as other:
                raise ValueError(str(other)) from other

        raise ValueError(explain_mistake(parsed, groups, again) or str(error).splitlines()[0]) from None


def _composed(root: str, overrides: tuple[str, ...], config_dir: Path | None) -> dict[str, Any]:
    # Files of the user's own may change, and ${...} may read what is not here.
    if config_dir is not None or any("${" in text for text in overrides):
        return _compose(root, overrides, config_dir)
    return copy.deepcopy(_compose_once(root, overrides))


@functools.lru_cache(maxsize=1000)
def _compose_once(root: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    return _compose(root, overrides, None)


def _compose(root: str, overrides: tuple[str, ...], config_dir: Path | None) -> dict[str, Any]:
    path = (
        []
        if config_dir is None
        else ["hydra.searchpath=['file://" + str(config_dir.resolve()).replace("'", r"\'") + "']"]
    )
    state = GlobalHydra.instance()
    before, state.hydra = state.hydra, None  # within a script's main there is one already
    try:
        with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
            return plain(hydra.compose(root, [*overrides, *path]))
    finally:
        state.hydra = before


def folders(config_dir: Path | None) -> list[Path]:
    """Return the folders of configs: the package's and the user's."""
    return [config_folder(), *([] if config_dir is None else [config_dir])]


def use_folder(config_dir: Path) -> None:
    """Let classes be imported from a folder of the user's own configs.

    Raises:
        ValueError: There is no such folder.
    """
    if not config_dir.is_dir():
        raise ValueError(f"--config-dir {config_dir} is not a folder: give one of option files, GROUP/OPTION.yaml")
    if str(config_dir.resolve()) not in sys.path:
        sys.path.append(str(config_dir.resolve()))


def plain(config: DictConfig) -> dict[str, Any]:
    """Return a config as plain dicts and lists, interpolations resolved; what is missing stays ``???``."""
    content = OmegaConf.to_container(config, resolve=True)
    assert isinstance(content, dict), "a root config is a mapping"
    values = {str(key): value for key, value in content.items() if key != "hydra"}
    for key in ("run_dir", "checkpoint", "data.root", "data.name", "model.name"):
        group, _, leaf = key.rpartition(".")
        node = values.get(group) or {} if group else values
        if isinstance(node.get(leaf), int | float):  # a folder named 2024
            node[leaf] = str(node[leaf])
    return values


def load_preset(name: str) -> Mapping[str, Any]:
    """Return the values of a model preset of ``conf/model``."""
    preset: dict[str, Any] = compose_values("pretrain", [f"model={name}"])["model"]
    return preset


@functools.cache
def _parser() -> OverridesParser:
    return OverridesParser.create()


def parse(text: str) -> Override:
    """Return an override in its parts.

    Raises:
        ValueError: It is none.
    """
    try:
        parsed = _parser().parse_override(text)
    except HydraException:
        raise ValueError(
            f"the override {text!r} cannot be parsed: write key=value, and quote a value that holds = ( [ or ' twice, "
            f"as in data.root=\"'a=b'\""
        ) from None
    kind = "set"
    if parsed.is_sweep_override():
        kind = "sweep"
    elif parsed.is_delete():
        kind = "delete"
    elif parsed.is_add() or parsed.is_force_add():
        kind = "add"
    return Override(text, parsed.key_or_group, "" if kind == "sweep" else str(parsed.value()), kind)


def first_value(text: str) -> str:
    """Return the override with a sweep replaced by its first value: enough to see whether its key exists."""
    override = parse(text)
    if override.kind != "sweep":
        return text
    parsed = _parser().parse_override(text)
    return (
        f"{text.partition('=')[0]}={next(iter(parsed.sweep_string_iterator()))}" if parsed.is_discrete_sweep() else text
    )
