"""Runs of seconds, for the tests of the stages."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

from mae.config.composing import compose
from mae.run import pretrain

SAVEFIG = Figure.savefig
REPOSITORY = Path(__file__).parent.parent

ENCODER = ("model.width=32", "model.depth=1", "model.heads=2")
DECODER = ("decoder.width=32", "decoder.depth=1", "decoder.heads=2")
QUIET = ("trainer.accelerator=cpu", "trainer.devices=1", "trainer.progress=false")
SMALL = {
    "pretrain": (*ENCODER, *DECODER, *QUIET, "epochs=2"),
    "finetune": (*QUIET, "epochs=2", "baselines=false"),
}

BARE = ("callbacks.knn=false", "callbacks.probe=false", "callbacks.rank=false", "callbacks.pictures=0")
"""Of a pretraining that measures nothing beside its loss: half of the time of a short one."""

_shared: dict[str, Path] = {}


@functools.cache
def few_digits() -> tuple[str, ...]:
    """Return what makes a run one on 160 training, 20 validation and 40 test digits, in batches of 16: 10 steps an epoch."""
    folder = Path(tempfile.mkdtemp(prefix="digits"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    digits, first = load_digits(), 0
    for split, count in (("train", 160), ("val", 20), ("test", 40)):
        chosen = slice(first, first + count)
        np.save(folder / f"{split}.npy", (digits.images[chosen] * 255 / 16).round().astype(np.uint8))
        np.save(folder / f"{split}_labels.npy", digits.target[chosen])
        first += count
    return "data=arrays", f"data.root={folder}", "data.num_workers=0", "batch_size=16"


def job(stage: str, folder: Path | str | None, *overrides: str) -> Any:
    """Prepare a stage as its script does: a tiny model on the digits, unless overrides say otherwise."""
    quoted = str(folder).replace("'", r"\'")
    given = [*SMALL[stage], *([f"run_dir='{quoted}'"] if folder else []), *overrides]
    # Composed without the folder, a config is remembered for the next run of the same kind.
    config: Any = compose(stage, [*SMALL[stage], *overrides])
    if folder and config.run_dir is None:
        config.run_dir = str(folder)
    if stage == "pretrain":
        return pretrain.prepare(config, given)
    from mae.downstream import prepare as finetune

    return finetune.prepare(config, given)


def shared_pretraining(factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished pretraining run that all tests share, and none may change."""
    if "pretrain" not in _shared:
        folder = factory.mktemp("shared") / "run"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Figure, "savefig", SAVEFIG)  # with all its drawings
            job("pretrain", folder, "batch_size=128").run()
        _shared["pretrain"] = folder
    return _shared["pretrain"]


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def names(folder: Path, ignore: Sequence[str] = ()) -> set[str]:
    """Return every file below a folder."""
    return {name for name in contents(folder) if not name.startswith(tuple(ignore))}
