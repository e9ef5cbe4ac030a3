"""The second stage from end to end, on the digits."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import mae
from mae.data.reading.decode import Picture
from mae.data.source import Source
from mae.training.callbacks.divergence import DivergedError
from mae.training.loggers import read_metrics
from tests.data.drawing import write_folder
from tests.report.test_page import assert_self_contained
from tests.runs import ENCODER, few_digits, job, names, shared_pretraining

QUICK = ("optim.name=adamw", "optim.base_lr=0.1")
"""A linear probe that learns within few steps."""


@pytest.fixture
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a finished pretraining."""
    return shared_pretraining(tmp_path_factory)


def state(folder: Path, name: str = "best") -> dict[str, Tensor]:
    content = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
    return {key.removeprefix("model."): value for key, value in content["state_dict"].items()}


def without_times(results: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in results.items() if k not in ("seconds", "images_per_second", "waiting_share")}


class Counting(Source):
    """A source that keeps count of what is read of it."""

    def __init__(self, source: Source, readable: bool = True) -> None:
        self.source, self.classes, self.labels = source, source.classes, source.labels
        self.read: list[int] = []
        self.readable = readable

    def __len__(self) -> int:
        return len(self.source)

    def open(self, index: int) -> Picture:
        assert self.readable, "read before its time"
        self.read.append(index)
        return self.source.open(index)

    def size(self, index: int) -> tuple[int, int]:
        return self.source.size(index)

    def name(self, index: int) -> str:
        return self.source.name(index)


def count_test_reads(prepared: Any) -> Counting:
    counting = Counting(prepared.data.splits.test)
    prepared.data.splits = dataclasses.replace(prepared.data.splits, test=counting)
    return counting


def test_a_run_folder_holds_what_is_promised(run: Path, tmp_path: Path) -> None:
    results = job("finetune", tmp_path / "run", f"checkpoint={run}").run()
    promised = {"config.yaml", "environment.json", "metrics.csv", "results.json", "report.html"}
    promised |= {"predictions.csv", "per_class.csv", "checkpoints/last.ckpt", "checkpoints/best.ckpt"}
    assert names(tmp_path / "run", ignore=["encoder/"]) == promised
    assert names(tmp_path / "run" / "encoder") == {"config.json", "model.safetensors"}
    written = json.loads((tmp_path / "run" / "results.json").read_text())
    assert written == results
    assert (written["stage"], written["protocol"], written["labelled_images"]) == ("finetune", "linear_probe", 1293)
    for key in ("val_top1", "val_loss", "test_top1", "test_top5", "test_log_loss", "images_per_second"):
        assert math.isfinite(written[key])
    assert written["test_images"] == 360
    page = (tmp_path / "run" / "report.html").read_text()
    assert_self_contained(page)
    assert f"{results['test_top1']:.1%}" in page


def test_a_probe_trains_its_head_alone(run: Path, tmp_path: Path) -> None:
    model = job("finetune", tmp_path / "run", f"checkpoint={run}").module.model
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == {
        "head.linear.weight",
        "head.linear.bias",
    }


def test_finetuning_moves_every_layer_and_the_early_ones_less(run: Path, tmp_path: Path) -> None:
    overrides = ("protocol=finetune", f"checkpoint={run}", "labels_per_class=8", "protocol.layer_decay=0.1")
    prepared = job("finetune", tmp_path / "run", *overrides)
    groups = {
        group["name"].partition(",")[0]: group["lr"]
        for group in prepared.module.optimization.optimizer(prepared.module.model).param_groups
    }
    assert [groups[f"layer {i}"] / groups["layer 2"] for i in range(3)] == pytest.approx([0.01, 0.1, 1])
    before = {key: value.clone() for key, value in prepared.module.model.state_dict().items()}
    prepared.run()
    after = state(tmp_path / "run", "last")
    assert [key for key, value in before.items() if torch.equal(value, after[key])] == []


def test_the_test_split_is_read_once_and_after_all_training(run: Path, tmp_path: Path) -> None:
    prepared = job("finetune", tmp_path / "run", *few_digits(), f"checkpoint={run}")
    counting = count_test_reads(prepared)
    counting.readable = False

    class Unlock(L.Callback):
        def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            counting.readable = True

    prepared.trainer.callbacks.append(Unlock())
    prepared.run()
    assert sorted(counting.read) == list(range(40))


class Spoil(L.Callback):
    """Turns the head against itself before the last validation, so that the last epoch is the worst."""

    def on_validation_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        if trainer.state.fn == "fit" and trainer.current_epoch == trainer.max_epochs - 1:
            with torch.no_grad():
                pl_module.model.head.linear.weight.neg_()


def test_the_best_epoch_on_validation_is_the_one_that_is_tested(run: Path, tmp_path: Path) -> None:
    prepared = job("finetune", tmp_path / "run", f"checkpoint={run}", *QUICK, "epochs=3")
    prepared.trainer.callbacks.insert(0, Spoil())
    results = prepared.run()
    accuracies = [value for _, value in read_metrics(tmp_path / "run" / "metrics.csv")["val_top1"]][:3]
    assert accuracies[2] < accuracies[1] / 2
    assert results["val_top1"] == pytest.approx(max(accuracies))
    assert results["test_top1"] > 2 * accuracies[2]

    # Counted by hand, from the file.
    data, module = prepared.data, prepared.module
    module.model.load_state_dict(
        {key: value for key, value in state(tmp_path / "run").items() if not key.endswith("top1")}, strict=False
    )
    module.eval()
    right = 0
    for batch in data.test_dataloader():
        images = (batch.images.double() / 255 - module.mean) / module.std
        right += int((module.model(images.float()).argmax(1) == batch.labels).sum())
    assert results["test_top1"] == pytest.approx(right / 360, abs=1e-6)


def test_scratch_needs_no_checkpoint(tmp_path: Path) -> None:
    overrides = (*ENCODER, *few_digits(), "protocol=finetune", "checkpoint=null", "labels_per_class=4")
    results = job("finetune", tmp_path / "run", *overrides).run()
    assert results["labelled_images"] == 40
    assert 0 <= results["test_top1"] <= 1


def test_scratch_builds_the_network_that_pretraining_would_have(run: Path, tmp_path: Path) -> None:
    # Else the comparison of the two would be one of sizes.
    scratch, probe = (
        job("finetune", tmp_path / name, *overrides).module.model.encoder
        for name, overrides in (("a", (*ENCODER, "checkpoint=null")), ("b", (f"checkpoint={run}",)))
    )
    assert scratch.config == probe.config
    assert [tuple(p.shape) for p in scratch.parameters()] == [tuple(p.shape) for p in probe.parameters()]


def test_the_pixels_are_standardised_as_in_pretraining(run: Path, tmp_path: Path) -> None:
    module = job("finetune", tmp_path / "run", f"checkpoint={run}", "labels_per_class=1").module
    pretrained = mae.load_encoder(run)
    assert module.mean.flatten().tolist() == pytest.approx(list(pretrained.pixel_mean))
    assert module.std.flatten().tolist() == pytest.approx(list(pretrained.pixel_std))


def test_the_seed_draws_the_labels_and_not_the_test(run: Path, tmp_path: Path) -> None:
    draws = [
        job("finetune", tmp_path / str(i), f"checkpoint={run}", "labels_per_class=2", f"seed={seed}").data
        for i, seed in enumerate((0, 0, 1))
    ]

    def pixels(source: Source) -> np.ndarray:
        return np.stack([source.image(i).numpy() for i in range(len(source))])

    trains = [pixels(data.splits.train) for data in draws]
    assert np.array_equal(trains[0], trains[1])
    assert not np.array_equal(trains[0], trains[2])
    for part in ("val", "test"):
        assert np.array_equal(pixels(getattr(draws[0].splits, part)), pixels(getattr(draws[2].splits, part)))
    for data in draws:
        assert np.bincount(data.splits.train.labels).tolist() == [2] * 10


def test_a_share_of_the_labels_is_a_share_of_each_class(run: Path, tmp_path: Path) -> None:
    labels = job("finetune", tmp_path / "run", f"checkpoint={run}", "label_fraction=0.1").data.splits.train.labels
    assert len(labels) == pytest.approx(129, abs=5)
    assert np.bincount(labels).min() >= 11


@pytest.mark.slow
def test_the_encoder_of_a_run_folder_and_of_its_encoder_folder_probe_alike(run: Path, tmp_path: Path) -> None:
    accuracies = [
        job("finetune", tmp_path / name, f"checkpoint={path}", "labels_per_class=3").run()["val_top1"]
        for name, path in (("run", run), ("encoder", run / "encoder"), ("file", run / "checkpoints" / "last.ckpt"))
    ]
    assert accuracies[0] == accuracies[1] == accuracies[2]


def test_a_larger_image_size_resamples_the_positions(run: Path, tmp_path: Path) -> None:
    prepared = job("finetune", tmp_path / "run", f"checkpoint={run}", "data.image_size=[24,32]", "labels_per_class=2")
    assert prepared.module.model.encoder.grid == (6, 8)
    assert math.isfinite(prepared.run()["val_top1"])


@pytest.mark.slow
def test_a_resumed_finetuning_ends_as_if_it_had_never_stopped(run: Path, tmp_path: Path) -> None:
    class PowerCut(L.Callback):
        def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            if trainer.current_epoch == 1:
                raise RuntimeError("power cut")

    overrides = ("protocol=finetune", f"checkpoint={run}", *few_digits(), "epochs=4")
    whole = job("finetune", tmp_path / "whole", *overrides).run()
    prepared = job("finetune", tmp_path / "parts", *overrides)
    prepared.trainer.callbacks.insert(0, PowerCut())
    with pytest.raises(RuntimeError, match="power cut"):
        prepared.run()
    resumed = job("finetune", tmp_path / "parts", *overrides, "resume=true").run()
    a, b = state(tmp_path / "whole", "last"), state(tmp_path / "parts", "last")
    assert [key for key in a if not torch.equal(a[key], b[key])] == []
    assert (resumed["val_top1"], resumed["test_top1"]) == (whole["val_top1"], whole["test_top1"])


@pytest.mark.parametrize("protocol", ["linear_probe", "finetune"])
def test_what_is_handed_on_is_the_encoder_that_was_tested(run: Path, tmp_path: Path, protocol: str) -> None:
    prepared = job("finetune", tmp_path / "run", *few_digits(), f"checkpoint={run}", f"protocol={protocol}")
    prepared.run()
    images = torch.randn(2, 1, 16, 16)
    trained = prepared.module.model.encoder.eval()
    assert torch.allclose(mae.load_encoder(tmp_path / "run" / "encoder").eval()(images), trained(images), atol=1e-6)


def test_classes_of_a_folder_are_learned(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 5)):
        for name, level in (("dark", 40), ("light", 200)):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                noise = rng.normal(level, 15, (20, 20)).clip(0, 255).astype(np.uint8)
                Image.fromarray(noise).save(folder / f"{number}.png")
    overrides = (
        "data=image_folder",
        f"data.root={tmp_path / 'data'}",
        "data.num_workers=0",
        "epochs=30",
        "optim.base_lr=1",
    )
    prepared = job("finetune", tmp_path / "run", *ENCODER, "checkpoint=null", *overrides)
    assert prepared.data.splits.train.classes == ("dark", "light")
    results = prepared.run()
    assert results["test_top1"] == 1
    assert results["largest_class_share"] == pytest.approx(0.5, abs=0.05)


def test_data_without_a_test_split_claim_no_test_accuracy(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_folder(tmp_path / "data" / "train" / name, 10)
    overrides = ("data=image_folder", f"data.root={tmp_path / 'data'}", "data.num_workers=0")
    results = job("finetune", tmp_path / "run", *ENCODER, "checkpoint=null", *overrides).run()
    assert "test_top1" not in results
    assert "validation accuracy" in (tmp_path / "run" / "report.html").read_text()


def test_a_loss_that_is_no_number_ends_the_run_by_a_line_with_the_remedy(run: Path, tmp_path: Path) -> None:
    overrides = ("protocol=finetune", f"checkpoint={run}", *few_digits(), "epochs=60")
    prepared = job("finetune", tmp_path / "run", *overrides, "trainer.validate_every=1")
    steps: list[int] = []

    class Burst(L.Callback):
        """Makes the weights no numbers in the third epoch."""

        def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
            steps.append(trainer.global_step)
            if trainer.global_step == 23:
                with torch.no_grad():
                    pl_module.model.head.linear.weight.fill_(math.nan)

    prepared.trainer.callbacks.insert(0, Burst())
    with pytest.raises(
        DivergedError, match=r"training diverged and was stopped\. Lower optim\.base_lr, or set"
    ) as ended:
        prepared.run()
    assert "\n" not in str(ended.value)
    assert max(steps) < 23 + 50
    # What was finite is kept, and no accuracy is claimed of what was not.
    assert not (tmp_path / "run" / "results.json").exists()
    for name in ("best", "last"):
        assert all(value.isfinite().all() for value in state(tmp_path / "run", name).values()), name
