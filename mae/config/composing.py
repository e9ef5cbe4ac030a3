"""From a Hydra config to the parts of a run: the one module of the package that knows Hydra."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, overload

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mae.config.reading import ROOTS, leaves, nearest, read_config
from mae.config.schema.roots import FinetuneConfig, PretrainConfig, RunConfig
from mae.run.exits import ExitStatus, Job, one_line_errors, run_job

Prepare = Callable[[Any, Sequence[str]], Job]
C = TypeVar("C", bound=RunConfig)


def config_folder() -> Path:
    """Return the folder of the recipes: inside an installed package, beside it in a clone."""
    package = Path(__file__).parent.parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


@overload
def compose(root: Literal["pretrain"], overrides: Sequence[str] = ()) -> PretrainConfig: ...
@overload
def compose(root: Literal["finetune"], overrides: Sequence[str] = ()) -> FinetuneConfig: ...
def compose(root: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Compose a config from its root and overrides, and check its values.

    Raises:
        ValueError: An override names what does not exist, or a value is wrong.
    """
    return read_config(ROOTS[root], compose_values(root, overrides))


def compose_values(root: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Compose a config from its root (``pretrain`` or ``finetune``) and overrides, as plain values.

    Raises:
        ValueError: An override names what does not exist; the message names the nearest that does.
    """
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        for text in overrides:
            key = _parsed(text).key_or_group
            if text.startswith("+") and not key.startswith(("model.options.", "hydra")):
                raise ValueError(
                    f"{text} adds what nothing reads: only arguments of the timm model are added, +model.options.NAME"
                )
        try:
            return plain(hydra.compose(root, list(overrides)))
        except (HydraException, OmegaConfBaseException) as error:
            _explain(root, overrides, error)


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
    """Return a model preset of ``conf/model``: its ``model`` and ``decoder`` values."""
    content = OmegaConf.to_container(OmegaConf.load(config_folder() / "model" / f"{name}.yaml"))
    assert isinstance(content, dict), "a preset is a mapping"
    return {str(key): value for key, value in content.items()}


def _explain(root: str, overrides: Sequence[str], error: Exception) -> NoReturn:
    """Turn Hydra's paragraphs into one line that names the nearest key, group or option."""
    groups = sorted(entry.name for entry in config_folder().iterdir() if entry.is_dir())
    chosen = [text for text in overrides if text.partition("=")[0] in groups]
    for text in overrides:
        override = _parsed(text)
        key = override.key_or_group
        if override.is_sweep_override():
            quoted = f"{key}=\"'a,b'\""
            raise ValueError(
                f"{text} is several values: -m sweeps over them, and a comma inside a value is quoted, {quoted}"
            )
        if key.startswith("hydra") or override.is_delete():
            continue
        if key in groups:
            options = _options(key)
            wanted = str(override.value())
            if wanted not in options:
                raise ValueError(f"{key}={wanted} does not exist: {nearest(wanted, options)}") from None
            continue
        try:  # a group option may bring keys that the defaults have not
            known = leaves(plain(hydra.compose(root, chosen)))
        except (HydraException, OmegaConfBaseException):
            known = leaves(plain(hydra.compose(root)))
        if key.startswith("model.options.") and not override.is_add():
            raise ValueError(f"{key} is an argument of the timm model, added by a plus sign: +{text}") from None
        if key not in known and not any(name.startswith(f"{key}.") for name in known):
            hint = _owner(root, key) or nearest(key, [*known, *groups])
            raise ValueError(f"{key} is not an option here: {hint}") from None
    raise ValueError(str(error).splitlines()[0]) from None


def _parsed(text: str) -> Override:
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException:
        raise ValueError(
            f"the override {text!r} cannot be parsed: write key=value, and quote a value that holds = ( [ or ' twice, "
            f"as in data.root=\"'a=b'\""
        ) from None


def _options(group: str) -> list[str]:
    return sorted(path.stem for path in (config_folder() / group).glob("*.yaml") if not path.stem.startswith("_"))


def _owner(root: str, key: str) -> str | None:
    """Return a hint where the key exists under another option of its group, such as data.root under data=folder."""
    group = key.partition(".")[0]
    owners = [
        option
        for option in (_options(group) if (config_folder() / group).is_dir() else [])
        if key in leaves(plain(hydra.compose(root, [f"{group}={option}"])))
    ]
    return f"it belongs to {group}={' or '.join(owners[:3])}, so give that too" if owners else None


FREE_ON_RESUME = (
    *("resume", "run_dir", "trainer", "logger", "callbacks"),
    *("data.root", "data.index", "data.num_workers", "data.max_unreadable"),
)
"""What may differ when a run goes on: where and how fast it runs, not what it computes."""


def resumed_config(config: C, stored: Mapping[str, Any], overrides: Sequence[str]) -> C:
    """Return the config of a run that goes on: as it was started, but for what may differ.

    Repeating the first command and giving ``run_dir`` and ``resume=true`` alone are both fine.

    Raises:
        ValueError: An override would change what the run computes.
    """
    if ("checkpoint" in stored) != isinstance(config, FinetuneConfig):
        other = "train_finetune.py" if "checkpoint" in stored else "train_pretrain.py"
        raise ValueError(f"run_dir={config.run_dir} holds a run of {other}: resume it with that script")
    # What a run of an earlier version did not know has its default; the keys of other groups say what it is.
    merged = OmegaConf.create(dict(stored))
    now, then = leaves(config.plain()), leaves(stored)
    for text in overrides:
        key = text.partition("=")[0].lstrip("+~")
        # An experiment sets values of every group.
        for leaf in (name for name in now if name == key or name.startswith(f"{key}.") or key == "experiment"):
            if now[leaf] is None or leaf == "resume":
                continue
            if any(leaf == free or leaf.startswith(f"{free}.") for free in FREE_ON_RESUME):
                OmegaConf.update(merged, leaf, now[leaf], force_add=True)
            elif leaf in then and now[leaf] != then[leaf]:
                raise ValueError(
                    f"{leaf}={now[leaf]} differs from the {then[leaf]} that {config.run_dir} was started with: "
                    f"leave it out, or start a new run"
                )
    merged.run_dir = config.run_dir
    merged.resume = True
    return read_config(type(config), plain(merged))


def script(
    root: str, prepare: Prepare, after_sweep: Callable[[Sequence[Path]], None] = lambda folders: None
) -> Callable[[], None]:
    """Return the main function of a script: overrides are checked, Hydra composes them, the stage is prepared and run.

    ``--help``, ``--cfg job`` and ``-m`` are Hydra's. With ``-m`` each job has a numbered folder in ``run_dir``, by default
    ``runs/sweeps/<time>``; one that cannot start, or diverges, is said and passed over.

    Args:
        root: ``pretrain`` or ``finetune``.
        prepare: Of the stage.
        after_sweep: Told the folders of the jobs of a sweep that have finished, also where a later one failed.
    """
    finished: list[Path] = []
    failed: list[Any] = []

    @hydra.main(config_path=str(config_folder()), config_name=root, version_base="1.3")  # type: ignore[untyped-decorator]
    def run(config: DictConfig) -> None:
        values, context = plain(config), HydraConfig.get()
        sweeping = context.mode == RunMode.MULTIRUN
        try:
            with one_line_errors():
                if sweeping:
                    place_in_sweep(values, context.job.num)
                job = prepare(read_config(ROOTS[root], values), list(context.overrides.task))
        except SystemExit as ended:
            if not sweeping:
                raise
            failed.append(ended.code)
            return
        try:
            run_job(job)
        except SystemExit as ended:
            if not sweeping or ended.code != ExitStatus.DIVERGED:
                raise
            failed.append(ended.code)
            return
        finished.append(Path(values["run_dir"]))

    def main() -> None:
        arguments, _ = get_args_parser().parse_known_args()
        with one_line_errors():
            compose_values(root, [_first_value(text) if arguments.multirun else text for text in arguments.overrides])
        GlobalHydra.instance().clear()
        if arguments.multirun and not any(text.startswith("run_dir=") for text in arguments.overrides):
            sys.argv.append(f"run_dir=runs/sweeps/{time.strftime('%Y-%m-%d_%H-%M-%S')}")
        try:
            run()
        finally:
            if arguments.multirun and finished:
                after_sweep(finished)
        if failed:
            sys.exit(failed[0])

    return main


def place_in_sweep(values: dict[str, Any], number: int) -> None:
    """Give a job of a sweep its own folder, and one device.

    Raises:
        ValueError: It asks for several devices: their launcher would start the whole sweep again on each.
    """
    values["run_dir"] = str(Path(values["run_dir"]) / str(number))
    if values["trainer"]["devices"] == "auto":
        values["trainer"]["devices"] = 1
    if values["trainer"]["devices"] not in (1, "1", [0]):
        raise ValueError(
            f"-m runs each job on one device: leave trainer.devices={values['trainer']['devices']} out, or start them one by one"
        )


def _first_value(text: str) -> str:
    """Return the override with a sweep replaced by its first value: enough to see whether its key exists."""
    override = _parsed(text)
    if not override.is_sweep_override() or not override.is_discrete_sweep():
        return text
    return f"{text.partition('=')[0]}={next(iter(override.sweep_string_iterator()))}"
