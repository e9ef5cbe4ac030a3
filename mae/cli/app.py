"""The ``mae`` command: the two scripts for an installed package, and the demo."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

# Nothing heavy at the top: `mae --help` waits for neither torch nor Hydra.
from mae.cli.data_commands import app as data_app
from mae.cli.stages import load_stage
from mae.run.exits import one_line_errors, run_job

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Masked-autoencoder pretraining on your own images.",
)
app.add_typer(data_app, name="data")
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Hydra overrides.", show_default=False)
]
ConfigDir = Annotated[
    Path | None, typer.Option("--config-dir", "-cd", help="A folder of option files of your own, GROUP/OPTION.yaml.")
]
Explain = Annotated[bool, typer.Option("--explain", help="Show each value, who chose it and why; run nothing.")]
Help = Annotated[bool, typer.Option("--help", "-h", help="Show every key.")]
AS_SCRIPT: dict[str, Any] = {"help_option_names": [], "ignore_unknown_options": True}


@app.command(context_settings=AS_SCRIPT)
def pretrain(
    overrides: Overrides = None, config_dir: ConfigDir = None, explain: Explain = False, show_help: Help = False
) -> None:
    """Pretrain: mae pretrain data=folder data.root=DIR; --help shows every key."""
    _run("pretrain", overrides or [], config_dir, explain=explain, show_help=show_help)


@app.command(context_settings=AS_SCRIPT)
def finetune(
    overrides: Overrides = None, config_dir: ConfigDir = None, explain: Explain = False, show_help: Help = False
) -> None:
    """Probe or fine-tune: mae finetune checkpoint=RUN data=image_folder data.root=DIR; --help shows every key."""
    _run("finetune", overrides or [], config_dir, explain=explain, show_help=show_help)


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where the demo writes; replaced if it holds one.")] = Path("demo"),
) -> None:
    """Pretrain on real digits, probe and fine-tune with five labels per class, and report."""
    from mae.cli.demo import run_demo

    with one_line_errors():
        run_demo(folder)


@app.command()
def table(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs.", show_default=False)],
    into: Annotated[Path, typer.Option(help="Where table.md and table.csv go.")] = Path("runs"),
) -> None:
    """Put second-stage runs into one table: mae table runs/finetune/*."""
    with one_line_errors():
        folders = [run for run in runs if not run.is_file()]  # RUNS/* also finds an earlier table
        if not folders:
            raise ValueError(f"{runs[0]} is a file: give the folders of finished runs")
        write_tables(folders, into)


def write_tables(runs: Sequence[Path], into: Path | None = None) -> None:
    """Write table.md and table.csv over finished runs, beside them unless ``into`` says where, and show them."""
    from mae.downstream.results_table import write_results_tables
    from mae.report.tables import print_table

    console = Console()
    into = into or runs[0].parent
    tables, warnings = write_results_tables(runs, into)
    for shown in tables:
        print_table(console, shown)
    for warning in warnings:
        console.print(warning, style="bold red", highlight=False)
    console.print(f"table    {into / 'table.md'}", highlight=False, soft_wrap=True)


def _run(root: str, overrides: Sequence[str], config_dir: Path | None, *, explain: bool, show_help: bool) -> None:
    from mae.cli.script import show_explanation
    from mae.config.composing import compose
    from mae.config.help import print_help

    with one_line_errors():
        unknown = [text for text in overrides if text.startswith("-")]
        if unknown:
            raise ValueError(
                f"mae {root} knows no {unknown[0]}: its options are --help, --explain and --config-dir DIR; -m and --cfg job "
                f"are of train_{root}.py"
            )
        if show_help:
            print_help(root, overrides, config_dir)
            return
        if explain:
            show_explanation(root, overrides, config_dir)
            return
        job = load_stage(root)(compose(root, overrides, config_dir), overrides)
    run_job(job)


if __name__ == "__main__":
    app()
