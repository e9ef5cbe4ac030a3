"""From a Hydra config to the parts of a run: the one module of the package that knows Hydra."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, Protocol

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

Config = dict[str, Any]


class Job(Protocol):
    """A stage whose every part has been built and checked."""

    def run(self) -> Mapping[str, Any]:
        """Do the work; return the results."""
        ...


Prepare = Callable[[Config, Sequence[str]], Job]


def config_folder() -> Path:
    """Return the folder of the recipes: inside an installed package, beside it in a clone."""
    inside = Path(__file__).parent / "conf"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "conf"


def compose(root: str, overrides: Sequence[str] = ()) -> Config:
    """Compose a config from its root (``pretrain`` or ``finetune``) and overrides, as plain values.

    Raises:
        ValueError: An override names what does not exist; the message names the nearest that does.
    """
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        try:
            return plain(hydra.compose(root, list(overrides)))
        except (HydraException, OmegaConfBaseException) as error:
            _explain(root, overrides, error)


def plain(config: DictConfig) -> Config:
    """Return a config as plain dicts and lists, interpolations resolved; what is missing stays ``???``."""
    content = OmegaConf.to_container(config, resolve=True)
    assert isinstance(content, dict), "a root config is a mapping"
    values = {str(key): value for key, value in content.items() if key != "hydra"}
    for group, key in ((values, "run_dir"), (values, "checkpoint"), (values.get("data", {}), "root")):
        if isinstance(group.get(key), int | float):  # a folder named 2024
            group[key] = str(group[key])
    return values


def load_preset(name: str) -> Mapping[str, Any]:
    """Return a model preset of ``conf/model``: its ``model`` and ``decoder`` values."""
    content = OmegaConf.to_container(OmegaConf.load(config_folder() / "model" / f"{name}.yaml"))
    assert isinstance(content, dict), "a preset is a mapping"
    return {str(key): value for key, value in content.items()}


def _explain(root: str, overrides: Sequence[str], error: Exception) -> NoReturn:
    """Turn Hydra's paragraphs into one line that names the nearest key, group or option."""
    known = leaves(plain(hydra.compose(root)))
    groups = sorted(entry.name for entry in config_folder().iterdir() if entry.is_dir())
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException:
            raise ValueError(
                f"the override {text!r} cannot be parsed: write key=value, and quote what holds spaces or commas"
            ) from None
        key = override.key_or_group
        if override.is_add() or override.is_delete() or key.startswith("hydra"):
            continue
        if key in groups:
            options = sorted(path.stem for path in (config_folder() / key).glob("*.yaml"))
            wanted = str(override.value())
            if wanted not in options:
                raise ValueError(f"{key}={wanted} does not exist: {_nearest(wanted, options)}") from None
        elif key not in known and not any(name.startswith(f"{key}.") for name in known):
            try:  # a group option may bring keys that the defaults have not
                others = [other for other in overrides if other.partition("=")[0] in groups]
                reachable = leaves(plain(hydra.compose(root, others)))
            except (HydraException, OmegaConfBaseException):
                reachable = known
            if key not in reachable and not any(name.startswith(f"{key}.") for name in reachable):
                raise ValueError(f"{key} is not an option here: {_nearest(key, [*reachable, *groups])}") from None
    raise ValueError(str(error).splitlines()[0]) from None


def leaves(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings to dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= leaves(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _nearest(wanted: str, known: Sequence[str]) -> str:
    # A slip of the hand, then a right name in the wrong group, such as lr for optim.base_lr, then whatever is nearest.
    alike = [name for name in known if wanted.rpartition(".")[2] in name.rpartition(".")[2]]
    near = (
        difflib.get_close_matches(wanted, known, n=1, cutoff=0.8)
        or difflib.get_close_matches(wanted, alike, n=1, cutoff=0)
        or difflib.get_close_matches(wanted, known, n=1, cutoff=0.5)
    )
    return f"did you mean {near[0]}?" if near else f"choose one of {', '.join(known)}"


NUMBER = (int, float)
RULES: dict[str, tuple[tuple[type, ...], float | None]] = {
    "seed": ((int,), 0),
    "epochs": ((int,), 1),
    "batch_size": ((int,), 1),
    "labels_per_class": ((int,), 1),
    "label_fraction": (NUMBER, 0),
    "masking.ratio": (NUMBER, None),
    "optim.base_lr": (NUMBER, 0),
    "optim.weight_decay": (NUMBER, 0),
    "optim.warmup_epochs": (NUMBER, 0),
    "data.num_workers": ((int,), 0),
    "data.min_scale": (NUMBER, 0),
    "optim.final_lr": (NUMBER, 0),
    "optim.clip_norm": (NUMBER, 0),
    "data.channels": ((int,), 1),
    "trainer.accumulate": ((int,), 1),
    "trainer.validate_every": ((int,), 1),
    "decoder.width": ((int,), 1),
    "decoder.depth": ((int,), 1),
    "decoder.heads": ((int,), 1),
    "model.patch_size": ((int,), 1),
    "model.width": ((int,), 1),
    "model.depth": ((int,), 1),
    "model.heads": ((int,), 1),
}
"""Type and least value of the numbers that a user may set; null always means: choose for me."""

SWITCHES = (
    *("resume", "data.flip", "objective.normalize", "callbacks.knn"),
    *("trainer.progress", "trainer.compile", "trainer.grad_checkpointing"),
)
LISTS = {"optim.betas": "two numbers", "data.mean": "one number per channel", "data.std": "one number per channel"}


def check_values(config: Config) -> None:
    """Raise one ValueError that names every value of a wrong type or below its least."""
    flat = leaves(config)
    wrong = []
    for key, (kinds, least) in RULES.items():
        value = flat.get(key)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, kinds):
            wrong.append(f"{key}={value!r} is not a {'' if float in kinds else 'whole '}number")
        elif least is not None and flat[key] < least:
            wrong.append(f"{key}={value} is less than {least:g}")
    size = flat.get("data.image_size")
    if size is not None and not _is_size(size):
        wrong.append(f"data.image_size={size} is neither a side nor [height, width] in pixels")
    for key in SWITCHES:
        if flat.get(key) not in (None, True, False):
            wrong.append(f"{key}={flat[key]} is neither true nor false")
    for key, meant in LISTS.items():
        value = flat.get(key)
        if value is not None and not (isinstance(value, list) and all(isinstance(part, NUMBER) for part in value)):
            wrong.append(f"{key}={value} is not a list of {meant}")
    if flat.get("logger.name") not in (None, "csv", "wandb"):
        wrong.append(f"logger.name={flat['logger.name']} is neither csv nor wandb")
    if flat.get("data.channels") not in (None, 1, 3):
        wrong.append(f"data.channels={flat['data.channels']} is neither 1 (grey) nor 3 (colour)")
    if wrong:
        raise ValueError("; ".join(wrong))


def _is_size(size: Any) -> bool:
    sides = size if isinstance(size, list) else [size, size]
    return len(sides) == 2 and all(isinstance(side, int) and side > 0 for side in sides)


FREE_ON_RESUME = ("resume", "run_dir", "trainer", "logger", "callbacks", "data.root", "data.num_workers")
"""What may differ when a run goes on: where and how fast it runs, not what it computes."""


def resumed_config(config: Config, stored: Config, overrides: Sequence[str]) -> Config:
    """Return the config of a run that goes on: as it was started, but for what may differ.

    Repeating the first command and giving ``run_dir`` and ``resume=true`` alone are both fine.

    Raises:
        ValueError: An override would change what the run computes.
    """
    if ("checkpoint" in stored) != ("checkpoint" in config):
        other = "train_finetune.py" if "checkpoint" in stored else "train_pretrain.py"
        raise ValueError(f"run_dir={config['run_dir']} holds a run of {other}: resume it with that script")
    merged = OmegaConf.create(stored)
    now, then = leaves(config), leaves(stored)
    for text in overrides:
        key = text.partition("=")[0].lstrip("+~")
        for leaf in (name for name in now if name == key or name.startswith(f"{key}.")):
            if now[leaf] is None or leaf == "resume":
                continue
            if any(leaf == free or leaf.startswith(f"{free}.") for free in FREE_ON_RESUME):
                OmegaConf.update(merged, leaf, now[leaf])
            elif leaf in then and now[leaf] != then[leaf]:
                raise ValueError(
                    f"{leaf}={now[leaf]} differs from the {then[leaf]} that {config['run_dir']} was started with: "
                    f"leave it out, or start a new run"
                )
    merged.run_dir = config["run_dir"]
    merged.resume = True
    return plain(merged)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn the errors that a user can cause into one line and exit status 2."""
    try:
        yield
    except (ValueError, FileNotFoundError, ImportError) as error:
        Console(stderr=True, soft_wrap=True).print(f"[bold red]error:[/] {_escape(str(error))}", highlight=False)
        sys.exit(2)


def _escape(text: str) -> str:
    return text.replace("[", r"\[")


def script(root: str, prepare: Prepare) -> Callable[[], None]:
    """Return the main function of a script: overrides are checked, Hydra composes them, the stage is prepared and run.

    ``--help``, ``--cfg job`` and ``-m`` are Hydra's.
    """

    @hydra.main(config_path=str(config_folder()), config_name=root, version_base="1.3")  # type: ignore[untyped-decorator]
    def run(config: DictConfig) -> None:
        with one_line_errors():
            job = prepare(plain(config), list(HydraConfig.get().overrides.task))
        job.run()

    def main() -> None:
        overrides = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
        with one_line_errors():
            compose(root, _unrolled(overrides))
        GlobalHydra.instance().clear()
        run()

    return main


def _unrolled(overrides: Sequence[str]) -> list[str]:
    """Return the overrides with each sweep replaced by its first value: enough to see whether its key exists."""
    result = []
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException:
            result.append(text)
            continue
        if override.is_sweep_override():
            first = next(iter(override.sweep_string_iterator()))
            text = f"{text.partition('=')[0]}={first}"
        if not override.key_or_group.startswith("hydra"):
            result.append(text)
    return result
