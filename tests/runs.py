"""Runs of seconds, for the tests of the stages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mae.config.composing import compose
from mae.run import pretrain

REPOSITORY = Path(__file__).parent.parent

ENCODER = ("model.width=32", "model.depth=1", "model.heads=2")
DECODER = ("decoder.width=32", "decoder.depth=1", "decoder.heads=2")
QUIET = ("trainer.accelerator=cpu", "trainer.devices=1", "trainer.progress=false")
SMALL = {
    "pretrain": (*ENCODER, *DECODER, *QUIET, "epochs=2"),
    "finetune": (*QUIET, "epochs=2", "baselines=false"),
}

_shared: dict[str, Path] = {}


def job(stage: str, folder: Path | str | None, *overrides: str) -> Any:
    """Prepare a stage as its script does: a tiny model on the digits, unless overrides say otherwise."""
    quoted = str(folder).replace("'", r"\'")
    given = [*SMALL[stage], *([f"run_dir='{quoted}'"] if folder else []), *overrides]
    if stage == "pretrain":
        return pretrain.prepare(compose("pretrain", given), given)
    from mae.downstream import prepare as finetune

    return finetune.prepare(compose("finetune", given), given)


def shared_pretraining(factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished pretraining run that all tests share, and none may change."""
    if "pretrain" not in _shared:
        folder = factory.mktemp("shared") / "run"
        job("pretrain", folder).run()
        _shared["pretrain"] = folder
    return _shared["pretrain"]


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def names(folder: Path, ignore: Sequence[str] = ()) -> set[str]:
    """Return every file below a folder."""
    return {name for name in contents(folder) if not name.startswith(tuple(ignore))}
