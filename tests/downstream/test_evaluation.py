"""evaluate_only=true: the score of a finished classifier, against its run and against counts by hand."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import log_loss

from mae.report.figures import confusion_svg
from tests.report.test_page import assert_self_contained, outline
from tests.runs import ENCODER, QUIET, REPOSITORY, contents, job, names, shared_pretraining

FILES = {"config.yaml", "environment.json", "results.json", "report.html", "predictions.csv", "per_class.csv"}

Trained = tuple[Path, dict[str, Any], np.ndarray, np.ndarray]


PLAIN_HEAD = ("protocol.head_start=random", "protocol.head_norm=none", "protocol.head_rate=1")
"""Of three epochs at a rate that a solved head would not outlive."""


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Give a classifier of the digits: its folder, its results, and its logits on the test split with the labels."""
    folder = tmp_path_factory.mktemp("digits") / "run"
    checkpoint = shared_pretraining(tmp_path_factory)
    overrides = ("protocol=finetune", "batch_size=128", "epochs=3", "optim.base_lr=0.03", *PLAIN_HEAD)
    prepared = job("finetune", folder, f"checkpoint={checkpoint}", *overrides)
    results = prepared.run()
    module = prepared.module.eval()
    with torch.no_grad():
        found = [
            (module.model((batch.images / 255 - module.mean) / module.std), batch.labels)
            for batch in prepared.data.test_dataloader()
        ]
    logits, labels = (torch.cat(parts).numpy() for parts in zip(*found, strict=True))
    return folder, results, logits, labels


LEVELS = {"dark": 30, "light": 220, "middle": 125}


def write_split(root: Path, count: int, *classes: str, seed: int = 0) -> Path:
    """Write ``count`` noisy grey images of each class, which its level tells."""
    rng = np.random.default_rng(seed)
    for name in classes:
        (root / name).mkdir(parents=True)
        for number in range(count):
            noise = rng.normal(LEVELS.get(name, 125), 15, (20, 20)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noise).save(root / name / f"{number:02}.png")
    return root


def image_folder(root: Path) -> tuple[str, str, str]:
    return "data=image_folder", f"data.root={root}", "data.num_workers=0"


@pytest.fixture(scope="module")
def greys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the run folder of a classifier of three levels of grey, which makes no mistake."""
    root = tmp_path_factory.mktemp("greys")
    write_split(root / "data" / "train", 20, *LEVELS)
    overrides = ("checkpoint=null", "protocol=finetune", "epochs=20", "optim.base_lr=0.05")
    results = job("finetune", root / "run", *ENCODER, *image_folder(root / "data"), *overrides).run()
    assert results["val_top1"] == 1
    return root / "run"


def evaluate(folder: Path | None, *overrides: str) -> dict[str, Any]:
    return dict(job("finetune", folder, "evaluate_only=true", *overrides).run())


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def scores(results: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in results.items() if key.startswith("test_")}


def test_a_finished_run_scores_what_it_said(digits: Trained, tmp_path: Path) -> None:
    folder, results, _, _ = digits
    before = contents(folder)
    again = evaluate(tmp_path / "again", f"checkpoint={folder}")
    assert scores(again) == scores(results)
    assert set(scores(again)) == {*("test_top1", "test_top5", "test_calibration_error", "test_log_loss", "test_images")}
    assert contents(folder) == before
    assert names(tmp_path / "again") == FILES
    assert {path.name for path in tmp_path.iterdir()} == {"again"}
    assert json.loads((tmp_path / "again" / "results.json").read_text()) == again
    for name in ("predictions.csv", "per_class.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()
    page = (tmp_path / "again" / "report.html").read_text()
    assert_self_contained(page)
    assert f"{again['test_top1']:.1%}" in outline(page).text
    assert "Confusion on the test split" in page


def test_a_run_alone_is_scored_into_a_folder_of_its_own(digits: Trained, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(digits[0], run)
    before = contents(run)
    results = evaluate(run)
    assert scores(results) == scores(digits[1])
    assert names(run) == set(before) | {f"evaluation/{name}" for name in FILES}
    # A second time nothing of the first is lost.
    evaluate(run)
    after = contents(run)
    assert {name: after[name] for name in before} == before
    assert names(run) == set(before) | {f"{part}/{name}" for part in ("evaluation", "evaluation_2") for name in FILES}


def test_the_scores_are_those_of_the_predictions(digits: Trained) -> None:
    folder, results, logits, labels = digits
    rows = table(folder / "predictions.csv")
    assert [int(row["label"]) for row in rows] == labels.tolist()
    assert [int(row["predicted"]) for row in rows] == logits.argmax(1).tolist()
    assert len({row["image"] for row in rows}) == 360

    probabilities = np.exp(logits.astype(np.float64))
    probabilities /= probabilities.sum(1, keepdims=True)
    right = [row["label"] == row["predicted"] for row in rows]
    sure = [float(row["confidence"]) for row in rows]
    assert sure == pytest.approx(probabilities.max(1).tolist(), abs=1e-5)
    assert 0.2 < results["test_top1"] < 0.95
    assert results["test_top1"] == pytest.approx(sum(right) / 360)
    five = [row["label"] in [row[f"class_{place}"] for place in range(1, 6)] for row in rows]
    assert results["test_top5"] == pytest.approx(sum(five) / 360)
    assert results["test_top5"] > results["test_top1"]
    assert results["test_log_loss"] == pytest.approx(log_loss(labels, probabilities), abs=1e-4)
    gaps = [
        abs(sum(sure[i] - right[i] for i in range(360) if b / 15 < sure[i] <= (b + 1) / 15)) / 360 for b in range(15)
    ]
    assert results["test_calibration_error"] == pytest.approx(sum(gaps), abs=1e-4)

    for row in table(folder / "per_class.csv"):
        members = [other for other in rows if other["label"] == row["class"]]
        assert int(row["images"]) == len(members)
        assert float(row["accuracy"]) == pytest.approx(
            sum(m["predicted"] == row["class"] for m in members) / len(members)
        )
        for name in map(str, range(10)):
            assert int(row[f"predicted {name}"]) == sum(m["predicted"] == name for m in members)


def test_classes_are_matched_by_name(greys: Path, digits: Trained, tmp_path: Path) -> None:
    # Without the first of the three, the others' numbers are other ones.
    for split in ("train", "test"):
        write_split(tmp_path / "data" / split, 7, "light", "middle", seed=1)
    results = evaluate(tmp_path / "fewer", f"checkpoint={greys}", *image_folder(tmp_path / "data"))
    assert (results["test_top1"], results["test_images"]) == (1, 14)
    rows = table(tmp_path / "fewer" / "per_class.csv")
    assert [(row["class"], row["images"], row["accuracy"]) for row in rows] == [
        ("dark", "0", ""),
        ("light", "7", "1.0"),
        ("middle", "7", "1.0"),
    ]

    # The same classifier with its classes in another order.
    content = torch.load(digits[0] / "checkpoints" / "best.ckpt", weights_only=True)
    order = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    content["hyper_parameters"]["classes"] = [str(number) for number in order]
    for key in ("model.head.linear.weight", "model.head.linear.bias"):
        content["state_dict"][key] = content["state_dict"][key][order]
    torch.save(content, tmp_path / "other.ckpt")
    results = evaluate(tmp_path / "other", f"checkpoint={tmp_path / 'other.ckpt'}", "data=digits")
    assert scores(results) == pytest.approx(scores(digits[1]))
    rows, known = (table(folder / "per_class.csv") for folder in (tmp_path / "other", digits[0]))
    assert [row["class"] for row in rows] == content["hyper_parameters"]["classes"]
    assert sorted(row["class"] + row["accuracy"] for row in rows) == sorted(
        row["class"] + row["accuracy"] for row in known
    )


def test_data_without_a_test_split_are_scored_on_validation(greys: Path, tmp_path: Path) -> None:
    results = evaluate(tmp_path / "run", f"checkpoint={greys}")
    own = json.loads((greys / "results.json").read_text())
    assert (results["val_top1"], results["val_images"]) == (1, own["val_images"])
    assert not scores(results)
    assert "validation" in outline((tmp_path / "run" / "report.html").read_text()).text


def test_a_split_of_one_image_is_scored(tmp_path: Path) -> None:
    # A tenth of a dozen images is one, which is easily taken for a number.
    write_split(tmp_path / "data" / "train", 6, "dark", "light")
    overrides = (*ENCODER, *image_folder(tmp_path / "data"), "checkpoint=null", "protocol=finetune")
    results = job("finetune", tmp_path / "run", *overrides).run()
    assert results["val_images"] == 1
    assert results["val_top1"] in (0, 1)


def test_how_it_is_loaded_does_not_change_what_is_loaded(greys: Path, tmp_path: Path) -> None:
    # A key of the group ``data`` that names no other data.
    results = evaluate(tmp_path / "run", f"checkpoint={greys}", "data.num_workers=0")
    assert results["val_top1"] == 1


@pytest.mark.draws
@pytest.mark.parametrize("name", ["plain", "$5 or $10", r"$\frac$", "<b>bold</b>"])
def test_names_of_classes_are_drawn_as_they_are(name: str) -> None:
    drawing = confusion_svg(torch.tensor([[3, 1], [0, 2]]), ("other", name))
    assert outline(drawing).text.count(name) == 2


def refused(tmp_path: Path, *overrides: str, error: type[Exception] = ValueError) -> str:
    before = set(tmp_path.rglob("*"))
    with pytest.raises(error) as raised:
        job("finetune", tmp_path / "refused", "evaluate_only=true", *overrides)
    assert set(tmp_path.rglob("*")) == before
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_classes_that_the_head_does_not_know(greys: Path, tmp_path: Path) -> None:
    write_split(tmp_path / "data" / "train", 4, "dark", "purple")
    message = refused(tmp_path, f"checkpoint={greys}", *image_folder(tmp_path / "data"))
    assert "the classifier's head has 3 classes" in message
    assert "'purple', which it was not trained on: evaluate on its own classes, or train a new head" in message


def test_data_without_labels(greys: Path, tmp_path: Path) -> None:
    write_split(tmp_path / "data", 4, "dark", "light")
    message = refused(tmp_path, f"checkpoint={greys}", "data=folder", f"data.root={tmp_path / 'data'}")
    assert "data=folder has no labels to score against: data=image_folder reads them from folders" in message


def test_an_encoder_that_is_no_classifier(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    run = shared_pretraining(tmp_path_factory)
    message = refused(tmp_path, f"checkpoint={run}")
    assert "best.ckpt holds no classifier, but an encoder" in message
    assert f"train_finetune.py checkpoint={run} trains one" in message


def test_a_classifier_that_is_not_there(tmp_path: Path) -> None:
    message = refused(tmp_path, f"checkpoint={tmp_path / 'nowhere'}", error=FileNotFoundError)
    assert message.startswith(f"no classifier at {tmp_path / 'nowhere'}")
    assert "give the folder of a finished run of train_finetune.py" in message
    assert "no classifier at" in refused(tmp_path, f"run_dir={tmp_path / 'none'}", error=FileNotFoundError)


def test_a_classifier_outside_a_run_folder_does_not_say_its_data(digits: Trained, tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    path = tmp_path / "a" / "b" / "best.ckpt"
    shutil.copy(digits[0] / "checkpoints" / "best.ckpt", path)
    assert "lies in no run folder, which would say its data: give data=" in refused(tmp_path, f"checkpoint={path}")


def test_an_image_size_that_it_was_not_trained_at(digits: Trained, tmp_path: Path) -> None:
    # Positions are resampled to the new grid: 6x6 patches in place of 4x4 are still digits, not noise.
    folder, results, *_ = digits
    assert results["test_top1"] > 0.25
    larger = job("finetune", tmp_path / "larger", "evaluate_only=true", f"checkpoint={folder}", "data.image_size=24")
    assert larger.module.model.encoder.grid == (6, 6)
    assert larger.run()["test_top1"] > 0.2
    message = refused(tmp_path, f"checkpoint={digits[0]}", "data=digits", "data.image_size=30")
    assert "not divisible by the patch size 4" in message


def test_a_run_is_not_written_over_by_its_evaluation(digits: Trained) -> None:
    folder = digits[0]
    before = contents(folder)
    with pytest.raises(ValueError, match="already holds a run"):
        job("finetune", folder, "evaluate_only=true", f"checkpoint={folder}")
    assert contents(folder) == before


TWICE = """
import sys
from mae.config.composing import compose
from mae.downstream.prepare import prepare

for overrides in (["run_dir=run"], ["run_dir=evaluated", "evaluate_only=true", "checkpoint=run"]):
    given = [*sys.argv[1:], *overrides]
    prepare(compose("finetune", given), given).run()
"""


@pytest.mark.slow
def test_two_processes_score_as_one_does(tmp_path: Path) -> None:
    write_split(tmp_path / "data" / "train", 10, *LEVELS)
    test = write_split(tmp_path / "data" / "test", 8, *LEVELS, seed=1)
    (test / "dark" / "00.png").unlink()  # 23 images do not divide among two
    (tmp_path / "twice.py").write_text(TWICE)
    overrides = [*ENCODER, *QUIET, *image_folder(tmp_path / "data"), "trainer.devices=2", "baselines=false"]
    done = subprocess.run(
        [sys.executable, "twice.py", *overrides, "checkpoint=null", "protocol=finetune", "epochs=2"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-1000:]
    assert {path.name for path in tmp_path.iterdir()} == {"data", "twice.py", "run", "evaluated"}
    alone = evaluate(tmp_path / "alone", f"checkpoint={tmp_path / 'run'}")
    assert alone["test_images"] == 23
    for folder in (tmp_path / "run", tmp_path / "evaluated"):
        results = json.loads((folder / "results.json").read_text())
        assert scores(results) == pytest.approx(scores(alone), abs=1e-5)
        rows, others = table(folder / "predictions.csv"), table(tmp_path / "alone" / "predictions.csv")
        assert len(rows) == 23
        for row, other in zip(rows, others, strict=True):
            assert [row[key] for key in ("image", "label", "predicted")] == [
                other[key] for key in ("image", "label", "predicted")
            ]
            assert float(row["confidence"]) == pytest.approx(float(other["confidence"]), abs=2e-6)
        assert (folder / "per_class.csv").read_text() == (tmp_path / "alone" / "per_class.csv").read_text()
    assert math.isfinite(alone["test_log_loss"])
