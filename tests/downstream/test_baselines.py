"""What a result stands beside, and that it is written before that is measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from mae.downstream import baselines
from mae.evaluation.classification_scores import read_right
from mae.training.callbacks.checkpointing import StoppedError
from tests.downstream.test_downstream_run import QUICK, without_times
from tests.runs import ENCODER, contents, job, names, shared_pretraining

FEW = (*QUICK, "labels_per_class=4", "baselines=true")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a finished pretraining."""
    return shared_pretraining(tmp_path_factory)


def test_a_result_stands_beside_random_weights_and_raw_pixels(run: Path, tmp_path: Path) -> None:
    # Else the one takes the statistics of the checkpoint, and the other measures the images that it has.
    alike = (*QUICK, "seed=3", "labels_per_class=20", "data.mean=[0.3]", "data.std=[0.35]")
    prepared = job("finetune", tmp_path / "run", f"checkpoint={run}", *alike, "baselines=true")
    results = prepared.run()
    own = job("finetune", tmp_path / "own", *ENCODER, "checkpoint=null", *alike).run()
    baseline = json.loads((tmp_path / "run" / "baseline" / "results.json").read_text())
    for key in ("val_top1", "val_loss", "test_top1", "test_log_loss"):
        assert baseline[key] == own[key], key
    assert results["random_top1"] == own["test_top1"]
    assert results["test_top1"] != results["random_top1"]
    assert "random_top1" not in baseline

    splits = prepared.data.splits
    train, test = (
        (torch.stack([source.image(i) for i in range(len(source))]).flatten(1).numpy() / 255, source.labels)
        for source in (splits.train, splits.test)
    )
    judge = LogisticRegression(C=1, max_iter=2000).fit(*train)
    assert results["pixels_top1"] == pytest.approx(judge.score(*test), abs=0.02)
    assert results["pixels_top1"] > 0.8

    for name, folder in (("random", tmp_path / "run" / "baseline"), ("pixels", None)):
        path = folder / "predictions.csv" if folder else tmp_path / "run" / "pixels_predictions.csv"
        assert sum(read_right(path).values()) / 360 == results[f"{name}_top1"]
        mean, low, high = results["differences"][name]
        assert mean == pytest.approx(results["test_top1"] - results[f"{name}_top1"])
        assert low < mean < high
    word = "helped" if results["differences"]["random"][1] > 0 else "no difference"
    assert results["verdict"] == word

    page = (tmp_path / "run" / "report.html").read_text()
    for key in ("test_top1", "random_top1", "pixels_top1", "largest_class_share"):
        assert f"{results[key]:.1%}" in page


def test_from_random_weights_raw_pixels_are_the_baseline(tmp_path: Path) -> None:
    overrides = (*ENCODER, "checkpoint=null", "baselines=true", "labels_per_class=2", "epochs=1")
    results = job("finetune", tmp_path / "run", *overrides).run()
    assert 0.3 < results["pixels_top1"] < 0.8
    assert "random_top1" not in results
    assert not (tmp_path / "run" / "baseline").exists()


def test_what_a_run_found_is_said_once_beside_its_baselines(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job("finetune", tmp_path / "run", f"checkpoint={run}", *FEW, "trainer.progress=true").run()
    said = capsys.readouterr().out
    for text in ("report   ", "encoder  /", "Always naming the commonest class", "logistic regression on raw pixels"):
        assert said.count(text) == 1, text
    assert said.count("from random weights") == 1
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    words = {"helped": "Helped: ", "no difference": "No difference: ", "hurt": "Hurt: "}
    assert words[results["verdict"]] + "linear_probe on 40 labelled images, test accuracy" in said


def test_baselines_that_are_not_wanted_are_not_made(run: Path, tmp_path: Path) -> None:
    overrides = ("baselines=false", "labels_per_class=2", "epochs=1")
    results = job("finetune", tmp_path / "run", f"checkpoint={run}", *overrides).run()
    assert not [key for key in results if key.startswith(baselines.PREFIXES)]
    assert not [name for name in names(tmp_path / "run") if name.startswith("baseline")]


class NoStep(L.Callback):
    """Lets nothing be trained."""

    def on_train_batch_start(self, *given: Any) -> None:
        raise AssertionError("trained once more")


def test_an_interrupt_in_the_baselines_loses_nothing_and_a_resume_measures_the_rest(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = job("finetune", tmp_path / "whole", f"checkpoint={run}", *FEW).run()

    prepared = job("finetune", tmp_path / "parts", f"checkpoint={run}", *FEW)
    prepare_again = prepared.prepare_again

    def stopped(config: Any) -> Any:
        nested = prepare_again(config)
        monkeypatch.setattr(nested.trainer, "fit", interrupt)
        return nested

    def interrupt(*given: Any, **named: Any) -> None:
        raise StoppedError("stopped at step 1, which is kept: resume=true run_dir=elsewhere goes on")

    prepared.prepare_again = stopped
    with pytest.raises(StoppedError, match=f"the result itself is kept: resume=true run_dir={tmp_path / 'parts'}"):
        prepared.run()
    kept = json.loads((tmp_path / "parts" / "results.json").read_text())
    own = {key: value for key, value in whole.items() if not key.startswith((*baselines.PREFIXES, "differ", "verdict"))}
    assert without_times(kept) == without_times(own)
    assert {"report.html", "encoder/model.safetensors"} <= names(tmp_path / "parts")
    before = contents(tmp_path / "parts")

    resumed = job("finetune", tmp_path / "parts", f"checkpoint={run}", *FEW, "resume=true")
    resumed.trainer.callbacks.append(NoStep())
    assert without_times(resumed.run()) == without_times(whole)
    after = contents(tmp_path / "parts")
    for name in ("metrics.csv", "predictions.csv", "encoder/model.safetensors"):
        assert after[name] == before[name]

    # A third time nothing is left to be done, and nothing is lost.
    monkeypatch.setattr("mae.downstream.tasks.classification.classify_pixels", interrupt)
    again = job("finetune", tmp_path / "parts", f"checkpoint={run}", *FEW, "resume=true")
    again.prepare_again = interrupt
    assert without_times(again.run()) == without_times(whole)


def test_a_baseline_that_diverges_leaves_the_result(run: Path, tmp_path: Path) -> None:
    prepared = job("finetune", tmp_path / "run", f"checkpoint={run}", *FEW)
    prepare_again = prepared.prepare_again

    def broken(config: Any) -> Any:
        nested = prepare_again(config)
        with torch.no_grad():
            nested.module.model.head.linear.weight.fill_(torch.nan)
        return nested

    prepared.prepare_again = broken
    results = prepared.run()
    assert results["pixels_top1"] > 0
    assert "random_top1" not in results
