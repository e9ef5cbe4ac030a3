"""What is measured on frozen features while a run is on, and when."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch

from mae.evaluation.frozen.features import extract_features, frozen
from mae.evaluation.representation import feature_std, rankme
from mae.models.backbones.encoder import Encoder
from mae.training.callbacks.alarms import Alarms
from mae.training.callbacks.measurements import Measured, Measurements
from mae.training.loggers import read_metrics
from tests.data.drawing import write_folder
from tests.runs import BARE, few_digits, job, shared_pretraining

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
    # Half a minute of digits pays for two measurements on few images: before training and at its end.
    series, final = read_metrics(run / "metrics.csv"), results(run)
    for key in ("knn_top1", "probe_top1", "rankme", "feature_std"):
        assert [step for step, _ in series[key]] == [19], key
        assert final[key] == pytest.approx(series[key][-1][1], rel=1e-6)
        assert isinstance(final[f"{key}_random"], float)
    for key in ("knn_top1_pixels", "probe_top1_pixels", "flat_patches", "patch_mean_loss"):
        assert isinstance(final[key], float), key
    assert (final["measured_labels"], final["measured_images"]) == (256, 144)
    assert final["alarms"] == list(dict.fromkeys(final["alarms"]))


def test_differences_are_of_the_same_images_and_the_word_is_the_probes(run: Path) -> None:
    final = results(run)
    assert set(final["differences"]) == {"probe_random", "knn_random", "probe_pixels", "knn_pixels"}
    for name, (mean, low, high) in final["differences"].items():
        measure, _, other = name.partition("_")
        assert mean == pytest.approx(final[f"{measure}_top1"] - final[f"{measure}_top1_{other}"], abs=1e-6)
        assert low < mean < high
    assert final["verdict"] in ("helped", "no difference", "hurt")


@pytest.mark.parametrize(
    ("probe", "knn", "word"),
    [
        (80, 20, "helped"),
        (51, 80, "helped"),
        (49, 20, "hurt"),
        (51, 20, "no difference"),
        (50, 50, "no difference"),
        (20, 80, "hurt"),
    ],
)
def test_knn_decides_where_the_probe_does_not_and_never_against_it(
    tmp_path: Path, probe: int, knn: int, word: str
) -> None:
    measurements = job("pretrain", tmp_path / "run").observers.measurements
    assert measurements.decided is None
    images = torch.arange(100)
    measurements.before = Measured(right={"probe": images < 50, "knn": images < 50})
    measurements.latest = Measured(right={"probe": images < probe, "knn": images < knn})
    assert measurements.decided is not None
    name, difference = measurements.decided
    assert difference.word == word
    assert name == ("knn" if (probe, knn) in ((51, 80), (49, 20)) else "probe")


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


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the images that encoders see whole: none of training, and none of the validation loss."""
    seen: Counter[str] = Counter()
    forward = Encoder.forward

    def count(encoder: Encoder, images: torch.Tensor, plan: Any = None) -> torch.Tensor:
        if plan is None:
            seen["whole"] += len(images)
        return forward(encoder, images, plan)

    monkeypatch.setattr(Encoder, "forward", count)
    return seen


def test_an_image_is_encoded_once_for_all_measures(tmp_path: Path, encoded: Counter[str]) -> None:
    prepared = job("pretrain", tmp_path / "run", "epochs=1", "callbacks.pictures=0", "callbacks.knn_bank=100")
    encoded.clear()  # what a step costs is counted on one image
    prepared.run()
    # 144 validation images and the bank of 100, before and at the end: results.json takes what the last validation measured,
    # and the features of the bank are there for whoever wants some of training images.
    features = prepared.observers.measurements.training_features(prepared.trainer, prepared.module)
    assert features.shape == (100, 32)
    assert encoded["whole"] == 2 * (144 + 100)


def test_what_is_encoded_is_a_share_of_what_is_trained_on(tmp_path: Path, encoded: Counter[str]) -> None:
    prepared = job(
        "pretrain", tmp_path / "run", "epochs=3", *few_digits(), "callbacks.share=10", "callbacks.knn_times=2"
    )
    encoded.clear()
    prepared.run()
    assert encoded["whole"] == 3 * (160 + 20)  # all there are, before training, on the way and at the end


def test_nothing_is_said_where_nothing_is_measured(
    tmp_path: Path, encoded: Counter[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for overrides, word in ((BARE, False), ((*BARE, "callbacks.rank=true"), True)):
        folder = tmp_path / str(word)
        prepared = job("pretrain", folder, *overrides, *few_digits(), "epochs=1", "trainer.progress=true")
        encoded.clear()
        prepared.run()
        said = capsys.readouterr().out
        assert ("measuring the encoder before training" in said) is word
        assert ("measuring frozen features" in said) is word
        # The features of training images are whitened in any case.
        assert encoded["whole"] == 160 + (2 * 20 if word else 0)


def test_images_without_labels_have_training_features_too(tmp_path: Path) -> None:
    prepared = job("pretrain", tmp_path / "run", *BARE, *few_digits(), "epochs=1")
    features = prepared.observers.measurements.training_features(prepared.trainer, prepared.module)
    assert features.shape == (160, 32)


def test_a_resume_keeps_what_was_measured_before_training(tmp_path: Path) -> None:
    class Stop(L.Callback):
        def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            if trainer.current_epoch == 1:  # the first one has been saved
                raise RuntimeError("power cut")

    cut = job("pretrain", tmp_path / "run", *QUICK, *few_digits(), "epochs=3")
    cut.trainer.callbacks.insert(0, Stop())
    with pytest.raises(RuntimeError, match="power cut"):
        cut.run()
    before = cut.observers.measurements.before.all
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
    off = job(
        "pretrain", tmp_path / "run", *QUICK, "batch_size=128", "callbacks.knn=false", f"callbacks.rank={rank}"
    ).run()
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
    assert "No labels, so no word" in page


def test_features_that_are_no_numbers_have_no_figures(tmp_path: Path) -> None:
    prepared = job("pretrain", tmp_path / "run", *QUICK)
    with torch.no_grad():
        prepared.module.model.encoder.vit.norm.weight.fill_(float("nan"))
    assert prepared.observers.measurements._measure(prepared.module, prepared.module.model.encoder).all == {}


def test_figures_of_a_single_image_are_none(tmp_path: Path) -> None:
    prepared = job("pretrain", tmp_path / "run", *QUICK, "callbacks.knn_queries=1", "callbacks.knn=false")
    assert prepared.observers.measurements._measure(prepared.module, prepared.module.model.encoder).all == {}


def test_the_state_holds_neither_images_nor_features(tmp_path: Path) -> None:
    # A checkpoint of every epoch need not hold them.
    job("pretrain", tmp_path / "run", *few_digits(), "callbacks.pictures=0", "epochs=1").run()
    kept = callbacks_state(tmp_path / "run")[Measurements.__name__]
    assert set(kept) == {"before", "right", "images", "patches"}
    assert {name: right.shape for name, right in kept["right"].items()} == {"knn": (20,), "probe": (20,)}


def test_figures_of_other_images_are_not_taken_over(tmp_path: Path) -> None:
    job("pretrain", tmp_path / "run", *QUICK, *few_digits(), "epochs=1").run()
    changed = job("pretrain", tmp_path / "run", "resume=true", "epochs=1", "callbacks.knn_queries=10")
    changed.observers.measurements.load_state_dict(callbacks_state(tmp_path / "run")[Measurements.__name__])
    assert changed.observers.measurements.before.all == {}
    final = changed.run()
    assert final["measured_images"] == 10
    assert {"knn_top1_random", "rankme_random"} <= set(final)


def test_the_state_of_an_earlier_version_is_measured_anew(tmp_path: Path) -> None:
    measurements = job("pretrain", tmp_path / "run", *QUICK).observers.measurements
    measurements.load_state_dict({"before": {"knn_top1": 0.5, "rankme": 4.0}, "patches": {"flat_patches": 0.1}})
    assert measurements.before.all == {}
    assert measurements.patches == {"flat_patches": 0.1}


class Watch(L.Callback):
    """Notes all that a measurement could disturb: before the first step, after every step and after every validation."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.note(pl_module)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self.note(pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.note(pl_module)

    def note(self, pl_module: L.LightningModule) -> None:
        self.seen.append(
            [
                torch.get_rng_state(),
                repr(random.getstate()),
                np.random.get_state()[1].tolist(),  # noqa: NPY002 - the global state is what must not change
                [module.training for module in pl_module.modules()],
                [parameter.requires_grad for parameter in pl_module.parameters()],
                [None if parameter.grad is None else parameter.grad.clone() for parameter in pl_module.parameters()],
            ]
        )


def test_pretraining_does_not_notice_that_it_is_measured(tmp_path: Path) -> None:
    noisy = "+model.options.proj_drop_rate=0.1"  # makes every step draw from the global generator
    watches, kept = {}, []
    for name in ("with", "without"):
        prepared = job("pretrain", tmp_path / name, *few_digits(), noisy, "callbacks.pictures=0")
        callbacks = prepared.trainer.callbacks
        prepared.observers.measurements.times = 2
        if name == "without":
            callbacks[:] = [part for part in callbacks if not isinstance(part, Measurements | Alarms)]
        watches[name] = Watch()
        callbacks.append(watches[name])
        prepared.fit()
        kept.append(torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True))
    # A sanity check, the start, and two epochs of ten steps and a validation.
    assert len(watches["with"].seen) == 1 + 1 + 2 * 11
    assert_same(watches["with"].seen, watches["without"].seen)
    for key in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert_same(kept[0][key], kept[1][key])


def assert_same(a: Any, b: Any) -> None:
    """Compare nested containers of tensors bit by bit."""
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for left, right in zip(a, b, strict=True):
            assert_same(left, right)
    else:
        assert a == b
