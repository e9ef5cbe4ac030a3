"""Many linear probes in one pass, against one run each."""

from __future__ import annotations

import csv
import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import mae
from mae.training.loggers import read_metrics
from tests.report.test_page import assert_self_contained
from tests.runs import job, names, shared_pretraining

FACTORS = (1, 3)
# Whole images without a flip are what the sweep extracts its features from.
ALIKE = ("labels_per_class=20", "batch_size=48", "epochs=6", "data.min_scale=1", "data.flip=false")
SWEEP = ("protocol.sweep=true", f"protocol.sweep_factors={list(FACTORS)}", *ALIKE)
LARS = ("optim.base_lr=60",)
ADAMW = ("optim.name=adamw", "optim.base_lr=0.3")  # which learns without BatchNorm too

Swept = tuple[Path, dict[str, Any]]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a finished pretraining."""
    return shared_pretraining(tmp_path_factory)


@pytest.fixture(scope="module")
def swept(pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """Give the folder of a sweep, and its results."""
    folder = tmp_path_factory.mktemp("swept") / "run"
    return folder, job("finetune", folder, f"checkpoint={pretrained}", *SWEEP, *LARS).run()


def candidates(folder: Path) -> list[dict[str, str]]:
    with (folder / "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def chosen(pool: str, norm: str, rate: float) -> tuple[str, str, str]:
    return f"protocol.pool={pool}", f"protocol.batch_norm={norm.lower()}", f"optim.base_lr={rate}"


def curve(folder: Path) -> list[tuple[int, float]]:
    return read_metrics(folder / "metrics.csv")["val_top1"]


@pytest.mark.slow
def test_each_probe_of_a_sweep_does_what_a_run_of_its_own_does(pretrained: Path, tmp_path: Path) -> None:
    results = job("finetune", tmp_path / "swept", f"checkpoint={pretrained}", *SWEEP, *ADAMW).run()
    found = {(row["pool"], row["batch_norm"], float(row["base_lr"])): row for row in candidates(tmp_path / "swept")}
    assert set(found) == set(itertools.product(("mean", "token"), ("True", "False"), (0.3, 0.9)))
    own = {}
    for number, choice in enumerate(found):
        folder = tmp_path / str(number)
        job("finetune", folder, f"checkpoint={pretrained}", *ALIKE, *ADAMW, *chosen(*choice)).fit()
        own[choice] = curve(folder)
    best = {choice: max(top1 for _, top1 in points) for choice, points in own.items()}
    assert {choice: float(row["val_top1"]) for choice, row in found.items()} == pytest.approx(best, abs=0.001)
    assert len(set(best.values())) > 4
    winner = max(best, key=best.__getitem__)
    assert (results["sweep_pool"], str(results["sweep_batch_norm"]), results["sweep_base_lr"]) == winner
    assert results["sweep_candidates"] == 8
    top1s = [top1 for _, top1 in own[winner]]
    assert [top1 for _, top1 in curve(tmp_path / "swept")] == pytest.approx(top1s, abs=0.001)
    assert int(found[winner]["best_epoch"]) == 1 + top1s.index(best[winner])


def test_the_winner_of_a_sweep_scores_as_it_would_by_itself(swept: Swept, pretrained: Path, tmp_path: Path) -> None:
    folder, results = swept
    choice = chosen(results["sweep_pool"], str(results["sweep_batch_norm"]), results["sweep_base_lr"])
    alone = job("finetune", tmp_path / "run", f"checkpoint={pretrained}", *ALIKE, *choice).run()
    measured = [key for key in alone if key.startswith(("val_", "test_"))]
    assert {"val_loss", "test_log_loss", "test_top1"} < set(measured)
    assert {key: results[key] for key in measured} == pytest.approx({key: alone[key] for key in measured}, abs=1e-3)
    assert results["val_top1"] > 0.1
    # So that the two can be laid over each other.
    assert [step for step, _ in curve(folder)] == [step for step, _ in curve(tmp_path / "run")]


def test_a_sweep_leaves_a_run_folder_like_any_other(swept: Swept, pretrained: Path) -> None:
    folder, results = swept
    promised = {"config.yaml", "environment.json", "metrics.csv", "results.json", "report.html", "sweep.csv"}
    promised |= {"predictions.csv", "per_class.csv", "checkpoints/last.ckpt", "checkpoints/best.ckpt"}
    assert names(folder, ignore=["encoder/"]) == promised
    assert json.loads((folder / "results.json").read_text()) == results
    assert math.isfinite(results["test_log_loss"])
    page = (folder / "report.html").read_text()
    assert_self_contained(page)
    assert "Linear probes side by side" in page
    assert f"{results['test_top1']:.1%}" in page
    images = torch.randn(2, 1, 16, 16)
    tokens = [mae.load_encoder(path).eval()(images) for path in (pretrained, folder, folder / "encoder")]
    assert torch.equal(tokens[0], tokens[1])
    assert torch.equal(tokens[0], tokens[2])


def test_the_winner_is_a_classifier_that_can_be_evaluated(swept: Swept, tmp_path: Path) -> None:
    folder, results = swept
    again = job("finetune", tmp_path / "again", "evaluate_only=true", f"checkpoint={folder}").run()
    assert {key: again[key] for key in again if key.startswith("test_")} == {
        key: results[key] for key in results if key.startswith("test_")
    }


def test_a_finished_sweep_can_be_resumed(swept: Swept) -> None:
    folder, results = swept
    before, trained = curve(folder), (folder / "checkpoints" / "best.ckpt").read_bytes()
    again = job("finetune", folder, *SWEEP, "resume=true").run()
    for key in ("val_top1", "test_top1", "sweep_pool", "sweep_batch_norm", "sweep_base_lr"):
        assert again[key] == results[key]
    assert curve(folder) == before
    assert (folder / "checkpoints" / "best.ckpt").read_bytes() == trained  # nothing was trained again
