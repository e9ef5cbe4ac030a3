"""protocol=features: what frozen features tell, on the digits."""

from __future__ import annotations

import csv
import json
import re
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import mae
from mae.data.source import Source, thinned
from mae.data.sources.bundled import digits
from mae.evaluation.frozen.summary import measure_frozen
from tests.data.drawing import write_folder
from tests.report.test_page import assert_self_contained, outline
from tests.runs import ENCODER, contents, job, names, shared_pretraining

FEATURES = ("protocol=features", "protocol.draws=2", "seed=4", "label_fraction=0.3")
KINDS = ("pretrained", "same encoder, random weights", "raw pixels")

Measured = tuple[Path, dict[str, Any]]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a finished pretraining."""
    return shared_pretraining(tmp_path_factory)


@pytest.fixture(scope="module")
def measured(pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """Give the folder of the measurement, and its results."""
    folder = tmp_path_factory.mktemp("measured") / "run"
    before = contents(pretrained)
    prepared = job("finetune", folder, f"checkpoint={pretrained}", *FEATURES)
    weights = {name: tensors(encoder) for name, encoder in prepared.encoders.items()}
    results = dict(prepared.run())
    for name, encoder in prepared.encoders.items():
        assert [key for key, value in tensors(encoder).items() if not torch.equal(value, weights[name][key])] == []
    assert contents(pretrained) == before
    return folder, results


def tensors(encoder: torch.nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in (*encoder.named_parameters(), *encoder.named_buffers())}


def test_the_folder_holds_what_is_promised(measured: Measured) -> None:
    folder, results = measured
    promised = {"config.yaml", "environment.json", "results.json", "few_shot.csv", "report.html"}
    assert names(folder) == promised
    assert json.loads((folder / "results.json").read_text()) == results
    assert (results["stage"], results["split"], results["test_images"]) == ("features", "test", 360)
    assert results["labelled_images"] == pytest.approx(0.3 * 1293, abs=5)
    page = (folder / "report.html").read_text()
    assert_self_contained(page)
    text = outline(page).text
    for kind in KINDS:
        assert text.count(kind) >= 3
    for prefix in ("", "random_", "pixels_"):
        for key in ("knn_top1", "logistic_top1", "retrieval_recall_1", "clustering_accuracy"):
            assert f"{results[prefix + key]:.1%}" in text


def test_the_word_comes_first_and_is_that_of_the_intervals(measured: Measured) -> None:
    folder, results = measured
    differences = results["differences"]
    for measure in ("logistic", "knn"):
        for other in ("random", "pixels"):
            mean, low, high = differences[f"{measure}_{other}"]
            assert low <= mean <= high
            assert mean == pytest.approx(results[f"{measure}_top1"] - results[f"{other}_{measure}_top1"])
    draws = [sum(results[f"{kind}few_shot"]["5 per class"]) / 2 for kind in ("", "random_")]
    assert differences["few_shot_random"]["5 per class"][0] == pytest.approx(draws[0] - draws[1])
    low, high = differences["logistic_random"][1:]
    if low > 0 or high < 0:
        assert results["verdict"] == ("helped" if low > 0 else "hurt")
    text = outline((folder / "report.html").read_text()).text
    words = {"helped": "Helped: ", "no difference": "No difference: ", "hurt": "Hurt: "}
    assert words[results["verdict"]] in text
    assert "raw pixels by the same measure" in text


def test_every_draw_is_written(measured: Measured) -> None:
    folder, results = measured
    with (folder / "few_shot.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(dict.fromkeys(row["features"] for row in rows)) == list(KINDS)
    text = outline((folder / "report.html").read_text()).text
    for kind, prefix in zip(KINDS, ("", "random_", "pixels_"), strict=True):
        curve = results[f"{prefix}few_shot"]
        assert {"1 per class", "10 per class", "100%"} <= set(curve)
        written = [(row["labels"], int(row["draw"]), float(row["top1"])) for row in rows if row["features"] == kind]
        assert written == [(budget, draw, top1) for budget, found in curve.items() for draw, top1 in enumerate(found)]
        # Two draws: the quantile of Student's t with one degree of freedom is 12.706.
        one, two = curve["5 per class"]
        half = 12.706 * statistics.stdev((one, two)) / 2**0.5
        assert f"{(one + two) / 2:.1%} ± {100 * half:.1f}" in text


def by_hand(source: Source, mean: float, std: float, encoder: mae.Encoder | None) -> tuple[Tensor, Tensor]:
    """Return features and labels of a split: the mean of the encoder's patch tokens, or standardised pixels."""
    images = torch.stack([source.image(index) for index in range(len(source))])
    larger = torch.nn.functional.interpolate(images, (16, 16), mode="bicubic", antialias=True)
    pixels = (larger.float() / 255 - mean) / std
    with torch.no_grad():
        features = pixels.flatten(1) if encoder is None else encoder.eval()(pixels)[:, 1:].mean(1)
    return features, torch.from_numpy(source.labels)


def test_the_figures_are_those_of_features_taken_by_hand(measured: Measured, pretrained: Path, tmp_path: Path) -> None:
    _, results = measured
    encoder = mae.load_encoder(pretrained)
    mean, std = encoder.pixel_mean[0], encoder.pixel_std[0]
    own = job("finetune", tmp_path / "own", *ENCODER, "checkpoint=null", *FEATURES[2:])
    splits = own.data.splits
    assert len(splits.train) == results["labelled_images"]
    for prefix, one in (("", encoder), ("random_", own.module.model.encoder), ("pixels_", None)):
        parts = [by_hand(source, mean, std, one) for source in (splits.train, splits.val, splits.test)]
        wanted = measure_frozen(*parts, splits.train.classes, draws=2, seed=4).results()
        few_shot = wanted.pop("few_shot")
        for key, value in wanted.items():
            # Rounding may turn an image over, and no more.
            expected = pytest.approx(value, abs=0.003) if isinstance(value, float) else value
            assert results[f"{prefix}{key}"] == expected, f"{prefix}{key}"
        assert list(results[f"{prefix}few_shot"]) == list(few_shot)
        for budget, found in few_shot.items():
            assert results[f"{prefix}few_shot"][budget] == pytest.approx(found, abs=0.003), budget
    assert len({results[f"{prefix}logistic_top1"] for prefix in ("", "random_", "pixels_")}) == 3


def test_without_a_checkpoint_the_random_encoder_stands_beside_pixels(tmp_path: Path) -> None:
    overrides = (*ENCODER, "checkpoint=null", "protocol=features", "protocol.draws=1", "labels_per_class=12")
    results = job("finetune", tmp_path / "run", *overrides, "protocol.whiten=false").run()
    assert "compare features as they are, not whitened" in outline((tmp_path / "run" / "report.html").read_text()).text
    assert results["baseline"] is True
    assert 0 < results["knn_top1"] < 1
    assert 0 < results["pixels_knn_top1"] < 1
    assert not [key for key in results if key.startswith("random_")]
    with (tmp_path / "run" / "few_shot.csv").open(newline="") as file:
        assert {row["features"] for row in csv.DictReader(file)} == set(KINDS[1:])
    assert "pretrained" not in outline((tmp_path / "run" / "report.html").read_text()).text.lower()


def test_data_without_a_test_split_say_so(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_folder(tmp_path / "data" / "train" / name, 12, grey=name == "a")
    data = ("data=image_folder", f"data.root={tmp_path / 'data'}", "data.num_workers=0")
    overrides = (*ENCODER, *data, "checkpoint=null", "protocol=features", "protocol.draws=1")
    results = job("finetune", tmp_path / "run", *overrides).run()
    assert (results["split"], results["val_images"]) == ("val", 2)
    assert "test_images" not in results
    text = outline((tmp_path / "run" / "report.html").read_text()).text
    assert "The data have no test split: the figures are of the images that also chose k, temperature and C." in text
    assert "On 2 val images" in text


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.devices=2", "protocol=features works on one device: leave trainer.devices=2 out"),
        ("protocol.pool=all_of_it", "protocol.pool='all_of_it' is unknown: choose one of mean, token"),
    ],
)
def test_what_cannot_be_measured_is_refused(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        job("finetune", tmp_path / "run", *ENCODER, "checkpoint=null", "protocol=features", override)
    assert not (tmp_path / "run").exists()


def test_large_splits_are_thinned_before_they_are_encoded_and_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mae.downstream.frozen_features.MOST_TRAIN", 60)
    monkeypatch.setattr("mae.downstream.frozen_features.MOST_OTHERS", 50)
    overrides = (*ENCODER, "checkpoint=null", "protocol=features", "protocol.draws=1")
    run = job("finetune", tmp_path / "run", *overrides)
    results = run.run()
    assert (results["labelled_images"], results["test_images"]) == (60, 50)
    assert (
        f"60 of the {len(run.data.splits.train):,} training images were used, drawn at random."
        in results["frozen_notes"]
    )


def test_images_are_drawn_at_random_and_the_same_ones_again() -> None:
    source = digits().train
    fewer, again = thinned(source, 100), thinned(source, 100)
    assert len(fewer) == 100
    assert np.array_equal(fewer.labels, again.labels)
    assert len(np.unique(np.diff(fewer.indices))) > 2  # no stride
    assert thinned(source, len(source)) is source
