"""The ``mae`` command: the two scripts for an installed package, and the demo."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from mae.assembly import Prepare, compose, one_line_errors

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Masked-autoencoder pretraining on your own images.",
)
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Hydra overrides.", show_default=False)
]


@app.command()
def pretrain(overrides: Overrides = None) -> None:
    """Pretrain: mae pretrain data=folder data.root=DIR."""
    from mae.pretrain import prepare

    _run("pretrain", prepare, overrides or [])


@app.command()
def finetune(overrides: Overrides = None) -> None:
    """Probe or fine-tune: mae finetune checkpoint=RUN data=image_folder data.root=DIR."""
    from mae.finetune import prepare

    _run("finetune", prepare, overrides or [])


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where the demo writes; replaced if it holds one.")] = Path("demo"),
) -> None:
    """Pretrain on real digits, probe and fine-tune with five labels per class, and report."""
    from mae.report.demo import run_demo

    with one_line_errors():
        run_demo(folder)


def _run(root: str, prepare: Prepare, overrides: Sequence[str]) -> None:
    with one_line_errors():
        job = prepare(compose(root, overrides), overrides)
    job.run()


if __name__ == "__main__":
    app()
