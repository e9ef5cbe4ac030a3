"""What is measured on frozen features while a run is on, and when."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from mae.evaluation.frozen.features import extract_features, frozen
from mae.evaluation.representation import feature_std, rankme
from mae.models.backbones.encoder import Encoder
from mae.training.callbacks.measurements import Measurements
from mae.training.loggers import read_metrics
from tests.data.drawing import write_folder
from tests.runs import few_digits, job, shared_pretraining

QUICK = ("callbacks.pictures=0", "callbacks.probe=false")


@pytest.fixture
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a finished run."""
    return shared_pretraining(tmp_path_factory)


def results(folder: Path) -> dict[str, Any]:
    content = json.loads((folder / "results.json").read_text())
    assert isinstance(content, dict)
    return content


def callbacks_state(folder: Path) -> dict[str, Any]:
    content = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert isinstance(content["callbacks"], dict)
    return content["callbacks"]


def test_all_figures_are_logged_and_the_last_ones_are_the_results(run: Path) -> None:
    series, final = read_metrics(run / "metrics.csv"), results(run)
    for key in ("knn_top1", "probe_top1", "rankme", "feature_std"):
        assert [step for step, _ in series[key]] == [9, 19], key
        assert final[key] == pytest.approx(series[key][-1][1], rel=1e-6)
    for key in ("knn_top1_random", "rankme_random", "feature_std_random", "flat_patches", "patch_mean_loss"):
        assert isinstance(final[key], float), key
    assert final["alarms"] == list(dict.fromkeys(final["alarms"]))


def test_the_rank_is_that_of_the_validation_features(run: Path, tmp_path: Path) -> None:
    prepared = job("pretrain", tmp_path / "run")
    module = prepared.module

    def features() -> torch.Tensor:
        loader = prepared.data.evaluation_loader(prepared.data.splits.val)
        return extract_features(loader, frozen(module.model.encoder), module.mean, module.std)[0]

    before = features()
    module.load_state_dict(torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])
    after, final = features(), results(run)
    assert len(after) == 144
    assert final["rankme"] == pytest.approx(rankme(after), rel=1e-5)
    assert final["feature_std"] == pytest.approx(feature_std(after), rel=1e-5)
    assert final["rankme_random"] == pytest.approx(rankme(before), rel=1e-5)
    assert final["feature_std_random"] == pytest.approx(feature_std(before), rel=1e-5)


def test_an_image_is_encoded_once_for_all_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = job("pretrain", tmp_path / "run", "epochs=1", "callbacks.pictures=0", "callbacks.knn_bank=100")
    seen: Counter[int] = Counter()
    forward = Encoder.forward

    def count(encoder: Encoder, images: torch.Tensor, plan: Any = None) -> torch.Tensor:
        if plan is None:  # no image of training, and none of the validation loss
            seen[0] += len(images)
        return forward(encoder, images, plan)

    monkeypatch.setattr(Encoder, "forward", count)
    prepared.run()
    # Before: 144 validation images and the bank of 100. One update of 64. At the end the same once more, and BatchNorm's
    # statistics on half of the 1,293 images. results.json takes what the last validation has measured.
    assert seen[0] == 2 * (144 + 100) + 64 + 647


def test_a_resume_keeps_what_was_measured_before_training(tmp_path: Path) -> None:
    class Stop(L.Callback):
        def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            if trainer.current_epoch == 1:  # the first one has been saved
                raise RuntimeError("power cut")

    cut = job("pretrain", tmp_path / "run", *QUICK, *few_digits(), "epochs=3")
    cut.trainer.callbacks.insert(0, Stop())
    with pytest.raises(RuntimeError, match="power cut"):
        cut.run()
    before = cut.observers.measurements.before
    resumed = job("pretrain", tmp_path / "run", "resume=true", "epochs=3")
    resumed.observers.measurements.untrained = lambda: pytest.fail("built again")
    final = resumed.run()
    assert final["steps"] == 30
    assert resumed.progress.clock.images == 2 * 10 * 16
    assert {key: final[f"{key}_random"] for key in before} == before
    assert set(before) == {"knn_top1", "rankme", "feature_std"}


@pytest.mark.parametrize("rank", ["false", pytest.param("true", marks=pytest.mark.slow)])
def test_what_was_not_measured_before_training_is_measured_on_the_same_weights(
    run: Path, tmp_path: Path, rank: str
) -> None:
    off = job("pretrain", tmp_path / "run", *QUICK, "callbacks.knn=false", f"callbacks.rank={rank}").run()
    assert not [key for key in off if key.startswith("knn")]
    assert ("rankme" in off) == (rank == "true")
    later = job("pretrain", tmp_path / "run", "resume=true", "callbacks.knn=true", "callbacks.rank=true").run()
    final = results(run)
    for key in ("knn_top1_random", "rankme_random", "knn_top1", "rankme"):
        assert later[key] == pytest.approx(final[key], rel=1e-5), key


def test_images_without_labels_have_a_rank_too(tmp_path: Path) -> None:
    write_folder(tmp_path / "photos", 40, 30, 30)
    final = job(
        "pretrain",
        tmp_path / "run",
        "data=folder",
        f"data.root={tmp_path / 'photos'}",
        "data.num_workers=0",
        "epochs=1",
    ).run()
    assert 1 <= final["rankme"] <= 4
    assert final["rankme_random"] >= 1
    assert 0 <= final["flat_patches"] <= 1
    assert not [key for key in final if "top1" in key]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Dimensions that the features use" in page
    assert "No labels, so no accuracy" in page


def test_features_that_are_no_numbers_have_no_figures(tmp_path: Path) -> None:
    prepared = job("pretrain", tmp_path / "run", *QUICK)
    with torch.no_grad():
        prepared.module.model.encoder.vit.norm.weight.fill_(float("nan"))
    assert prepared.observers.measurements._measure(prepared.module, prepared.module.model.encoder, None) == {}


def test_figures_of_a_single_image_are_none(tmp_path: Path) -> None:
    prepared = job("pretrain", tmp_path / "run", *QUICK, "callbacks.knn_queries=1", "callbacks.knn=false")
    assert prepared.observers.measurements._measure(prepared.module, prepared.module.model.encoder, None) == {}


def test_the_callback_says_nothing_of_the_weights_that_it_measures(tmp_path: Path) -> None:
    # A checkpoint of every epoch need not hold the images, nor the features.
    job("pretrain", tmp_path / "run", *few_digits(), "callbacks.pictures=0", "epochs=1").run()
    assert set(callbacks_state(tmp_path / "run")[Measurements.__name__]) == {"before", "patches"}
