"""Alarms of real runs: raised once, said at once, kept, and shown."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from rich.console import Console

from mae.evaluation import alarm_rules as rules
from mae.training.callbacks import alarms
from mae.training.callbacks.measurements import Measured
from mae.training.loggers import read_metrics
from tests.runs import BARE, few_digits, job

QUICK = (*BARE, *few_digits())


@pytest.fixture(autouse=True)
def _judge_short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "FAIR_STEPS", 0)
    monkeypatch.setattr(rules, "ENOUGH_STEPS", 0)


def written(folder: Path) -> dict[str, Any]:
    content = json.loads((folder / "results.json").read_text())
    assert isinstance(content, dict)
    return content


def test_a_warmup_that_never_ends_is_said_before_the_first_step_and_once(tmp_path: Path) -> None:
    class Stop(L.Callback):
        def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            if trainer.current_epoch == 1:
                raise RuntimeError("power cut")

    said: list[str] = []
    for resume in ("resume=false", "resume=true"):
        prepared = job("pretrain", tmp_path / "run", *QUICK, "epochs=3", "optim.warmup_epochs=3", resume)
        output = io.StringIO()
        prepared.progress.quiet = False
        prepared.progress.console = Console(file=output, width=60)
        if resume == "resume=false":
            prepared.trainer.callbacks.insert(0, Stop())
            with pytest.raises(RuntimeError, match="power cut"):
                prepared.run()
        else:
            prepared.run()
        said.append(output.getvalue())
    assert said[0].count("Warm-up is longer than the run, 30 steps of 30") == 1
    assert "Warm-up" not in said[1]
    assert written(tmp_path / "run")["alarms"][0].startswith("Warm-up is longer than the run")
    assert "While training: Warm-up is longer" in (tmp_path / "run" / "report.html").read_text()


def test_an_alarm_is_a_whole_line_above_the_bar(tmp_path: Path) -> None:
    prepared = job("pretrain", tmp_path / "run", *QUICK, "optim.warmup_epochs=2")
    output = io.StringIO()
    prepared.progress.quiet = False
    prepared.progress.console = Console(file=output, width=60, force_terminal=True, color_system=None)
    prepared.run()
    assert prepared.observers.alarms.sentences[0] in output.getvalue()


def test_waiting_for_data_is_said_with_the_share_of_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarms, "CHECK_STEPS", 5)
    monkeypatch.setattr(rules, "STEPS_TIMED", 10)
    monkeypatch.setattr(rules, "SECONDS_TIMED", 300)
    prepared = job("pretrain", tmp_path / "run", *QUICK)

    class Slow(L.Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            prepared.progress.clock.waiting += 30

    prepared.trainer.callbacks.insert(0, Slow())
    prepared.run()
    (sentence,) = (text for text in prepared.observers.alarms.sentences if text.startswith("Waiting for data "))
    assert "100% of the time" in sentence
    assert "data.num_workers, now 0" in sentence


def flat_edges(images: torch.Tensor) -> torch.Tensor:
    images = images.clone()
    images[..., :10] = 7
    return images


@pytest.mark.parametrize("normalize", ["true", "false"])
def test_flat_patches_matter_where_they_are_normalised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, normalize: str
) -> None:
    prepared = job("pretrain", tmp_path / "run", *QUICK, "epochs=1", f"objective.normalize={normalize}")
    monkeypatch.setattr(prepared.data.eval_transform, "finish", lambda image, rng=None: flat_edges(image))
    results = prepared.run()
    assert results["flat_patches"] >= 0.5
    said = [sentence for sentence in results["alarms"] if "nearly one colour" in sentence]
    assert len(said) == (normalize == "true" and results["flat_patches"] > 0.5)


def test_a_loss_that_does_not_move_is_said(tmp_path: Path) -> None:
    results = job("pretrain", tmp_path / "run", *QUICK, "optim.base_lr=1e-9").run()
    # At random weights predictions are worse than the mean.
    assert results["val_loss"] > 0.98 * results["patch_mean_loss"]
    assert ["nothing is being learned" in sentence for sentence in results["alarms"]] == [True]


@pytest.mark.parametrize(("rank", "knn"), [(1.5, 0.9), (30.0, 0.3)])
def test_measurements_are_judged_when_they_are_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: float, knn: float
) -> None:
    # Of five validations the second, the fourth and the fifth measure. What the second has measured, in the first half of
    # the run, is no ground for an alarm at the third.
    prepared = job(
        "pretrain", tmp_path / "run", "epochs=5", *few_digits(), "callbacks.pictures=0", "callbacks.probe=false"
    )
    judged: list[tuple[int, int]] = []
    measurements = prepared.observers.measurements

    def said() -> list[str]:
        ours = ("rank has collapsed", "worse than those of random weights")
        return [text for text in prepared.observers.alarms.sentences if any(words in text for words in ours)]

    def measure(*_: Any, keep: bool = False) -> Measured:
        if not keep:  # before training
            return Measured(right={"knn": torch.arange(100) < 50})
        measurements.possible_rank = 32
        judged.append((prepared.trainer.global_step, len(said())))
        return Measured({"rankme": rank}, {"knn": torch.arange(100) < 100 * knn})

    measurements.times = 3
    monkeypatch.setattr(measurements, "_measure", measure)
    prepared.trainer.fit(prepared.module, datamodule=prepared.data)
    assert judged == [(20, 0), (40, 0), (50, 1)]
    (sentence,) = said()
    assert ("rank has collapsed" in sentence) == (rank < 2)
    assert ("worse than those of random weights" in sentence) == (knn < 0.5)


def test_a_good_run_raises_nothing(tmp_path: Path) -> None:
    prepared = job("pretrain", tmp_path / "run", *BARE, "epochs=6")
    results = prepared.run()
    assert results["alarms"] == []
    assert len(read_metrics(tmp_path / "run" / "metrics.csv")["train_loss"]) == 240


def test_too_few_steps_are_said_before_the_first_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "ENOUGH_STEPS", 30)
    results = job("pretrain", tmp_path / "run", *QUICK).run()
    assert results["steps"] < 30
    sentence = results["alarms"][0]
    assert sentence.startswith(f"Too short a pretraining: {results['steps']} steps in all")
    assert f"<p>{sentence}</p>" in (tmp_path / "run" / "report.html").read_text()
