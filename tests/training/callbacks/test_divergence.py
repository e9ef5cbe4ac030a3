"""A run whose loss is no number: it stops, says so, keeps what was learned before, and ends with a status of its own."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from mae.evaluation import alarm_rules as rules
from mae.run.exits import ExitStatus, run_job
from mae.training.callbacks import divergence
from mae.training.callbacks.checkpointing import Best
from mae.training.callbacks.divergence import DivergedError, has_finite_weights
from tests.runs import BARE, few_digits, job

QUICK = (*BARE, *few_digits())


class Spoil(L.Callback):
    """Ruins the weights after a step, as a diverged optimizer does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if trainer.global_step == self.step:
            with torch.no_grad():
                pl_module.model.encoder.vit.norm.weight.fill_(float("nan"))


def steps_kept(folder: Path) -> dict[str, int]:
    """The step of each checkpoint, all of whose weights are numbers."""
    kept = {}
    for path in (folder / "checkpoints").iterdir():
        content = torch.load(path, weights_only=True)
        assert all(value.isfinite().all() for value in content["state_dict"].values()), path
        kept[path.stem] = content["global_step"]
    return kept


@pytest.mark.parametrize(
    ("step", "last", "kept"),
    [
        pytest.param(23, 27, 20, id="amid"),
        pytest.param(37, 40, 20, id="before a validation", marks=pytest.mark.slow),
        pytest.param(40, 40, 20, id="at a validation", marks=pytest.mark.slow),
    ],
)
def test_a_run_that_diverges_stops_says_so_and_keeps_what_was_before(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    step: int,
    last: int,
    kept: int,
) -> None:
    monkeypatch.setattr(divergence, "CHECK_STEPS", 5)
    prepared = job(
        "pretrain", tmp_path / "run", "epochs=20", "trainer.validate_every=2", "callbacks.pictures=0", *few_digits()
    )
    prepared.trainer.callbacks.insert(0, Spoil(step))
    with pytest.raises(SystemExit) as ended:
        run_job(prepared)
    assert ended.value.code == ExitStatus.DIVERGED == 3
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error:"))
    assert rules.NOT_A_NUMBER in line
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    # Seen at the next look, confirmed a step later, or by the validation loss.
    assert results["steps"] == last
    assert results["val_loss"] is None
    assert [text for text in results["alarms"] if text.startswith(rules.NOT_A_NUMBER)] == [results["alarms"][-1]]
    assert "knn_top1" not in results
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count(rules.NOT_A_NUMBER) == 1
    assert "of no use" in page
    assert steps_kept(tmp_path / "run") == {"last": kept, "best": kept}
    assert not (tmp_path / "run" / "encoder").exists()


def test_weights_that_are_ruined_after_the_last_look_are_seen_at_the_end(tmp_path: Path) -> None:
    prepared = job("pretrain", tmp_path / "run", *QUICK, "epochs=3", "trainer.validate_every=2")
    prepared.trainer.callbacks.insert(0, Spoil(25))
    with pytest.raises(DivergedError, match="after step 30"):
        prepared.run()
    assert steps_kept(tmp_path / "run") == {"last": 20, "best": 20}


def test_one_bad_batch_makes_the_validation_loss_bad(tmp_path: Path) -> None:
    module = job("pretrain", tmp_path / "run", *QUICK).module
    module.val_loss.update(torch.tensor(math.nan), weight=3)
    module.val_loss.update(torch.tensor(1.0), weight=3)
    assert math.isnan(module.val_loss.compute())


def test_one_odd_loss_does_not_end_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Under fp16 the scaler skips a step whose gradients overflow.
    monkeypatch.setattr(divergence, "CHECK_STEPS", 5)

    class Blink(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *_: Any) -> None:
            if trainer.global_step in (5, 15):
                outputs["loss"] = torch.tensor(math.inf)

    prepared = job("pretrain", tmp_path / "run", *QUICK)
    prepared.trainer.callbacks.insert(0, Blink())
    assert prepared.run()["steps"] == 20
    assert prepared.divergence.sentence is None


def test_the_loss_is_read_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(divergence, "CHECK_STEPS", 7)
    read: list[int] = []
    prepared = job("pretrain", tmp_path / "run", *QUICK)

    class Loss:
        def __float__(self) -> float:
            read.append(prepared.trainer.global_step)
            return 0.5

    class Swap(L.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            prepared.divergence._loss = Loss()

    prepared.trainer.callbacks.append(Swap())
    prepared.run()
    assert read == [7, 14]


def test_weights_are_numbers_or_not() -> None:
    layer = torch.nn.Linear(2, 2)
    assert has_finite_weights(layer)
    assert has_finite_weights(torch.nn.Identity())
    with torch.no_grad():
        layer.bias[1] = math.inf
    assert not has_finite_weights(layer)


def test_the_best_score_is_kept_under_the_name_of_earlier_versions(tmp_path: Path) -> None:
    earlier = ModelCheckpoint(tmp_path, "best", monitor="val_loss", mode="min")
    assert Best(tmp_path, "val_loss", "min").state_key == earlier.state_key
