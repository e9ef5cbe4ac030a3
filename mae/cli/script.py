"""The main function of a script: overrides are checked, Hydra composes them, the stage is prepared and run."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from rich.console import Console

from mae.cli.stages import load_stage
from mae.config.class_options import adding, as_typed, own_classes
from mae.config.composing import check, compose, compose_values, config_folder, first_value, plain
from mae.config.explain import explain, print_explanation
from mae.config.help import print_help
from mae.run.exits import ExitStatus, one_line_errors, run_job

EXPLAIN = "--explain"


def script(root: str, after_sweep: Callable[[Sequence[Path]], None] = lambda folders: None) -> Callable[[], None]:
    """Return the main function of a script.

    ``--help`` shows every key, ``--explain`` the values of a run in place of running it, ``--config-dir DIR`` adds options of the
    user's own. ``--cfg job`` and ``-m`` are Hydra's. With ``-m`` each job has a numbered folder in ``run_dir``, by default
    ``runs/sweeps/<time>``; one that cannot start, or diverges, is said and passed over.

    Args:
        root: ``pretrain`` or ``finetune``.
        after_sweep: Told the folders of the jobs of a sweep that have finished, also where a later one failed.
    """
    finished: list[Path] = []
    failed: list[Any] = []
    typed: list[str] = []

    @hydra.main(config_path=str(config_folder()), config_name=root, version_base="1.3")  # type: ignore[untyped-decorator]
    def run(config: DictConfig) -> None:
        context = HydraConfig.get()
        sys.argv[:] = typed  # what a person reads in environment.json, and what Lightning starts again
        overrides = as_typed(context.overrides.task)
        values = own_classes(plain(config), overrides)
        sweeping = context.mode == RunMode.MULTIRUN
        try:
            with one_line_errors():
                if sweeping:
                    place_in_sweep(values, context.job.num)
                job = load_stage(root)(check(root, values), overrides)
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
        if sweeping:  # a run alone chooses its folder itself, where none is given
            finished.append(Path(values["run_dir"]))

    def main() -> None:
        explaining = EXPLAIN in sys.argv
        sys.argv[1:] = [text for text in sys.argv[1:] if text != EXPLAIN]
        typed[:] = sys.argv
        with one_line_errors():
            arguments = parse_arguments(typed[1:])
            config_dir = Path(arguments.config_dir) if arguments.config_dir else None
            overrides: list[str] = arguments.overrides
            first = [first_value(text) for text in overrides] if arguments.multirun else overrides
            if arguments.help:
                print_help(root, first, config_dir)
                return
            if explaining:
                show_explanation(root, first, config_dir)
                return
            compose_values(root, first, config_dir)
        if arguments.multirun and not any(text.startswith("run_dir=") for text in overrides):
            typed.append(f"run_dir=runs/sweeps/{time.strftime('%Y-%m-%d_%H-%M-%S')}")
        sys.argv[:] = [typed[0], *adding(typed[1:])]
        try:
            run()
        finally:
            if arguments.multirun and finished:
                after_sweep(finished)
        if failed:
            sys.exit(failed[0])

    return main


def parse_arguments(given: Sequence[str]) -> argparse.Namespace:
    """Return what stands on the command line, by Hydra's parser.

    Raises:
        ValueError: An option is unknown, or lacks its value.
    """

    def refuse(message: str) -> NoReturn:
        raise ValueError(f"{message}: the options are --help, --explain, --config-dir DIR, -m and --cfg job")

    parser: argparse.ArgumentParser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]
    return parser.parse_args(given)


def show_explanation(root: str, overrides: Sequence[str], config_dir: Path | None) -> None:
    """Prepare a run, which writes nothing, and print what each of its values is, and why.

    Raises:
        ValueError: The run would be refused.
    """
    job = load_stage(root)(compose(root, overrides, config_dir), overrides)
    setting = job.setting
    rows = explain(setting.config, setting.choices.made, root, overrides, config_dir)
    print_explanation(rows, Console())


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
