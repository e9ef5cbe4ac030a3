"""The debug group: one batch by heart, a run of a few steps, and where the time goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning as L
import torch

from mae.config.composing import compose
from mae.run.pretrain import Pretraining, prepare
from mae.training.loggers import read_metrics
from tests.runs import SMALL

BARE = ("callbacks.knn=false", "callbacks.probe=false", "callbacks.rank=false", "callbacks.pictures=0")


def debugging(folder: Path, *overrides: str, **debug: Any) -> Pretraining:
    config = compose("pretrain", [*SMALL["pretrain"], f"run_dir={folder}", *overrides])
    for key, value in debug.items():
        setattr(config.debug, key, value)
    return prepare(config)


class Record(L.Callback):
    """Keeps the pixels of each step."""

    def __init__(self) -> None:
        self.images: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.images.append(batch.images.clone())


def test_one_batch_is_seen_in_every_step_with_the_same_crops_and_is_learned(tmp_path: Path) -> None:
    job = debugging(tmp_path / "run", *BARE, "epochs=4", "batch_size=128", "optim.base_lr=0.03", overfit=True)
    job.trainer.callbacks.append(record := Record())
    first = next(iter(job.data.train_dataloader())).images
    assert job.run()["steps"] == len(record.images) == 40
    assert all(torch.equal(images, first) for images in record.images)
    losses = [loss for _, loss in read_metrics(tmp_path / "run" / "metrics.csv")["train_loss"]]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_five_steps_end_as_a_whole_run_does(tmp_path: Path) -> None:
    job = debugging(tmp_path / "run", "trainer.accumulate=2", "batch_size=64", "epochs=20", steps=5)
    validated: list[int] = []

    class Count(L.Callback):
        def on_validation_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
            validated.append(trainer.global_step)

    job.trainer.callbacks.append(Count())
    results = job.run()
    assert results["steps"] == 5
    assert validated == [0, 5, 5]  # the sanity check, the end of the epoch, and the last word
    rates = [rate for _, rate in read_metrics(tmp_path / "run" / "metrics.csv")["lr"]]
    assert len(rates) == 5
    assert rates[-1] < rates[0] / 4  # the schedule, too, is of five steps
    written = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"config.yaml", "metrics.csv", "results.json", "report.html", "encoder", "pictures"} <= written
    assert {path.stem for path in (tmp_path / "run" / "checkpoints").iterdir()} == {"best", "last"}
    assert {"knn_top1", "rankme"} <= set(json.loads((tmp_path / "run" / "results.json").read_text()))


def test_a_profile_is_a_table_in_the_run_folder(tmp_path: Path) -> None:
    debugging(tmp_path / "run", *BARE, steps=2, profiler=True).run()
    profile = (tmp_path / "run" / "profile.txt").read_text()
    assert "Mean duration" in profile
    assert "optimizer_step" in profile
