"""The first stage from end to end, on the digits, with a model of seconds."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import yaml
from omegaconf import OmegaConf
from torch import Tensor

import mae
from mae.config.reading import leaves
from mae.data.loading.batches import Batch
from mae.evaluation.frozen.features import frozen
from mae.evaluation.frozen.solved_probes import knn_right
from mae.training.loggers import read_metrics
from tests.data.drawing import write_folder
from tests.report.test_page import assert_self_contained
from tests.runs import BARE, DECODER, ENCODER, QUIET, REPOSITORY, contents, few_digits, job, names, shared_pretraining

QUICK = (*BARE, *few_digits())


@pytest.fixture
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a finished run: 20 steps of 128 images, in 2 epochs."""
    return shared_pretraining(tmp_path_factory)


def checkpoint(folder: Path, name: str = "last") -> dict[str, Any]:
    content = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
    assert isinstance(content, dict)
    return content


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def assert_same_weights(first: Path, second: Path) -> None:
    a, b = checkpoint(first)["state_dict"], checkpoint(second)["state_dict"]
    assert a.keys() == b.keys()
    assert [key for key in a if not torch.equal(a[key], b[key])] == []


def test_a_run_folder_holds_what_is_promised(run: Path) -> None:
    promised = {
        "config.yaml",
        "environment.json",
        "metrics.csv",
        "results.json",
        "report.html",
        "checkpoints/last.ckpt",
        "checkpoints/best.ckpt",
        "encoder/config.json",
        "encoder/model.safetensors",
        "pictures/reconstructions.png",
    }
    assert promised <= names(run)
    assert names(run, ignore=["pictures/epoch_"]) == promised


def test_results_are_named_plainly(run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    for key in ("val_loss", "images_per_second", "knn_top1", "knn_top1_random", "knn_top1_pixels", "waiting_share"):
        assert isinstance(results[key], float), key
        assert math.isfinite(results[key])
    assert (results["stage"], results["epochs"], results["steps"], results["images_seen"]) == ("pretrain", 2, 20, 2560)
    assert 0.5 < results["val_loss"] < 1.2
    assert results["knn_top1_pixels"] > 0.8  # from 256 labels


def test_the_config_is_resolved_and_says_all_that_was_chosen(run: Path) -> None:
    text = (run / "config.yaml").read_text()
    assert "${" not in text
    null = {
        key
        for key, value in leaves(OmegaConf.to_container(OmegaConf.load(run / "config.yaml"))).items()
        if value is None
    }
    assert null <= {
        "minutes",
        "epoch_steps",
        "optim.clip_norm",
        "debug.steps",
        "objective._target_",
        "masking._target_",
        "decoder._target_",
        "model._target_",
    }


def test_the_environment_says_how_to_run_it_again(run: Path) -> None:
    environment = json.loads((run / "environment.json").read_text())
    assert environment["torch"] == torch.__version__
    assert {"command", "python", "timm", "lightning", "device", "commit"} <= set(environment)


def test_the_loss_falls(run: Path) -> None:
    loss = [value for _, value in read_metrics(run / "metrics.csv")["train_loss"]]
    assert len(loss) == 20
    assert sum(loss[-5:]) < 0.8 * sum(loss[:5])


def test_each_epoch_is_validated_once(run: Path) -> None:
    rows = table(run)
    assert [int(row["step"]) for row in rows] == list(range(20))
    assert [row["epoch"] for row in rows if row["val_loss"]] == ["0", "1"]


def test_pictures_are_of_epochs_that_were_trained(run: Path) -> None:
    assert {path.name for path in (run / "pictures").iterdir()} == {
        "epoch_0001.png",
        "epoch_0002.png",
        "reconstructions.png",
    }


def test_the_report_needs_nothing_beside_it_and_gives_the_verdict(run: Path) -> None:
    page = (run / "report.html").read_text()
    assert_self_contained(page)
    results = json.loads((run / "results.json").read_text())
    assert f"{results['knn_top1']:.1%}" in page
    assert "random weights" in page
    assert page.count("<svg") >= 2
    assert "data.image_size=16" in page


def test_checkpoints_hold_plain_values_only(run: Path) -> None:
    plain = (str, int, float, bool, type(None))

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            for key, part in value.items():
                assert type(key) is str
                walk(part)
        elif isinstance(value, list | tuple):
            for part in value:
                walk(part)
        else:
            assert type(value) in plain, type(value)

    for name in ("last", "best"):
        # weights_only=True already refuses what could run code.
        walk(checkpoint(run, name)["hyper_parameters"])


def test_the_run_its_checkpoint_and_its_encoder_give_the_same_encoder(run: Path) -> None:
    images = torch.randn(2, 1, 16, 16)
    tokens = [
        mae.load_encoder(path).eval()(images) for path in (run, run / "checkpoints" / "last.ckpt", run / "encoder")
    ]
    assert torch.equal(tokens[0], tokens[1])
    assert torch.equal(tokens[0], tokens[2])
    model = mae.load_autoencoder(run).eval()
    assert torch.equal(model.encoder(images), tokens[0])
    assert model.encoder.pixel_mean == mae.load_encoder(run / "encoder").pixel_mean
    assert torch.equal(model.encoder.eval().features(images), mae.load_encoder(run).eval().features(images))
    assert model.encoder.pixel_mean == pytest.approx((0.3085,), abs=0.01)


def test_the_logged_rate_is_base_times_batch_over_256_warmed_up_and_cosine(tmp_path: Path) -> None:
    job("pretrain", tmp_path / "run", *QUICK, "batch_size=8", "optim.base_lr=0.01", "optim.warmup_epochs=0.35").run()
    rates = read_metrics(tmp_path / "run" / "metrics.csv")["lr"]
    peak, warm, total = 0.01 * 8 / 256, 7, 40
    expected = [
        (
            step,
            peak
            * ((step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / (total - warm)))),
        )
        for step in range(total)
    ]
    assert [step for step, _ in rates] == [step for step, _ in expected]
    assert [rate for _, rate in rates] == pytest.approx([rate for _, rate in expected], rel=1e-5)


SPLIT = ("batch_size=32", "epochs=4", "optim.base_lr=0.03", "data.num_workers=0")
"""20 steps of 32 of the 160 digits, without what a batch does not divide."""


def split_run(folder: Path, precision: torch.dtype, *overrides: str) -> dict[str, torch.Tensor]:
    """Return the weights of a run of 20 steps, in a process of its own where it has several."""
    given = [*ENCODER, *DECODER, *QUIET, *BARE, *few_digits(), *SPLIT, *overrides, f"run_dir={folder}"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.run.split_run", str(precision).removeprefix("torch."), *given],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    state = checkpoint(folder)["state_dict"]
    assert {value.dtype for value in state.values()} == {precision}
    return state  # type: ignore[no-any-return]


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "within"), [(torch.float64, 1e-9), (torch.float32, 1e-3)])
def test_how_a_batch_is_split_changes_nothing_but_rounding(
    tmp_path: Path, precision: torch.dtype, within: float
) -> None:
    ways = {
        "whole": (),
        "halves": ("trainer.accumulate=2",),
        "processes": ("trainer.devices=2",),
        "both": ("trainer.devices=2", "trainer.accumulate=2"),
    }
    whole, *others = (split_run(tmp_path / name, precision, *given) for name, given in ways.items())
    for name, state in zip(list(ways)[1:], others, strict=True):
        apart = max(float((value - state[key]).abs().max()) for key, value in whole.items())
        assert apart < within, name
    start = job("pretrain", tmp_path / "start", *BARE, *few_digits(), *SPLIT).module.state_dict()
    moved = max(float((value - start[key]).abs().max()) for key, value in whole.items())
    assert moved > 10 * max(within, 1e-3)


def test_two_runs_of_one_seed_are_bit_identical_and_another_seed_differs(run: Path, tmp_path: Path) -> None:
    job("pretrain", tmp_path / "again", *BARE, "batch_size=128").run()  # what is measured beside changes nothing
    assert_same_weights(run, tmp_path / "again")
    job("pretrain", tmp_path / "other", *BARE, "seed=1", "epochs=1").run()
    a, b = (
        checkpoint(folder)["state_dict"]["model.encoder.vit.patch_embed.proj.weight"]
        for folder in (run, tmp_path / "other")
    )
    assert not torch.equal(a, b)


def masks_of(folder: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> dict[tuple[int, int, int], bytes]:
    """Return the mask of each crop of a run of the few digits, by its epoch, image and repeat."""
    module = job("pretrain", folder, *QUICK, *overrides).module
    masks: dict[tuple[int, int, int], bytes] = {}
    step, forward, batches = module.training_step, module.model.forward, []

    def training_step(batch: Batch, batch_idx: int) -> Tensor:
        batches.append(batch)
        return step(batch, batch_idx)  # type: ignore[no-any-return]

    def spy(images: Tensor, plan: mae.MaskPlan, valid: Tensor | None) -> Any:
        if module.training:
            for row, index in enumerate(batches[-1].indices.tolist()):
                masks[module.current_epoch, index, row % module.repeats] = plan.mask[row].numpy().tobytes()
        return forward(images, plan, valid)

    monkeypatch.setattr(module, "training_step", training_step)
    monkeypatch.setattr(module.model, "forward", spy)
    trainer = L.Trainer(max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, limit_val_batches=0)
    trainer.fit(module, train_dataloaders=job("pretrain", folder, *QUICK, *overrides).data.train_dataloader())
    return masks


def test_an_image_has_another_mask_in_every_epoch_crop_and_run_and_the_same_one_in_any_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = {
        name: masks_of(tmp_path / name, monkeypatch, *given)
        for name, given in {
            "a": ("batch_size=80",),
            "b": ("batch_size=16", "trainer.accumulate=2"),
            "twice": ("batch_size=80", "data.repeats=2"),
            "seed": ("batch_size=80", "seed=1"),
        }.items()
    }
    assert masks["a"] == masks["b"]
    assert len(masks["a"]) == 2 * 160
    assert masks["twice"].items() >= masks["a"].items()
    assert len(masks["twice"]) == 2 * 2 * 160
    drawn = [*masks["twice"].values(), *masks["seed"].values()]
    # Of the 1,820 ways to hide 12 of 16 patches, 960 draws meet about 745.
    assert len(set(drawn)) == pytest.approx(1820 * (1 - (1 - 1 / 1820) ** 960), rel=0.05)


def test_validation_masks_are_the_same_whatever_the_seed(tmp_path: Path) -> None:
    modules = [job("pretrain", tmp_path / str(seed), f"seed={seed}").module for seed in (0, 1)]
    index = torch.tensor([3, 0, 143])
    plans = [module.validation_plan(index) for module in modules]
    assert torch.equal(plans[0].mask, plans[1].mask)
    # By its index an image keeps its mask in whatever company it comes.
    alone = torch.cat([modules[0].validation_plan(index[i : i + 1]).mask for i in range(3)])
    assert torch.equal(alone, plans[0].mask)
    assert not torch.equal(plans[0].mask[0], plans[0].mask[1])


def test_the_validation_loss_does_not_depend_on_the_batch(run: Path, tmp_path: Path) -> None:
    expected = json.loads((run / "results.json").read_text())["val_loss"]
    for batch in (16, 100, 1000):
        prepared = job("pretrain", tmp_path / "run", *BARE, f"batch_size={batch}")
        prepared.module.load_state_dict(checkpoint(run)["state_dict"])
        (scores,) = prepared.trainer.validate(prepared.module, datamodule=prepared.data, verbose=False)
        assert scores["val_loss"] == pytest.approx(expected, rel=1e-5)


def test_the_random_baseline_is_this_encoder_before_training(run: Path, tmp_path: Path) -> None:
    prepared = job("pretrain", tmp_path / "run")
    module = prepared.module
    images = prepared.observers.measurements.images
    known = (frozen(module.model.encoder), module.mean, module.std)
    right = knn_right(images.bank_of(*known), images.queries_of(*known), images.classes)
    assert json.loads((run / "results.json").read_text())["knn_top1_random"] == pytest.approx(
        float(right.float().mean())
    )


class Stop(L.Callback):
    """Fails at a moment of an epoch, as a machine does."""

    def __init__(self, epoch: int, batch: int | None = None) -> None:
        self.epoch, self.batch = epoch, batch

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (trainer.current_epoch, batch_idx) == (self.epoch, self.batch):
            raise RuntimeError("power cut")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        if trainer.current_epoch == self.epoch and self.batch is None:
            raise RuntimeError("power cut")


def interrupted(folder: Path, stop: Stop, *overrides: str) -> None:
    prepared = job("pretrain", folder, *overrides)
    prepared.trainer.callbacks.insert(0, stop)
    with pytest.raises(RuntimeError, match="power cut"):
        prepared.run()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give an uninterrupted run of four epochs."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    job("pretrain", folder, *QUICK, "epochs=4").run()
    return folder


@pytest.mark.parametrize(
    "stop",
    [
        pytest.param(Stop(0), id="first epoch", marks=pytest.mark.slow),
        pytest.param(Stop(2), id="third epoch", marks=pytest.mark.slow),
        pytest.param(Stop(1, batch=4), id="amid an epoch"),
    ],
)
def test_a_resumed_run_ends_as_if_it_had_never_stopped(whole: Path, tmp_path: Path, stop: Stop) -> None:
    folder = tmp_path / "run"
    interrupted(folder, stop, *QUICK, "epochs=4")
    assert not (folder / "results.json").exists()
    job("pretrain", folder, "resume=true", "epochs=4").run()
    assert_same_weights(whole, folder)
    losses = [read_metrics(path / "metrics.csv") for path in (whole, folder)]
    assert losses[1]["val_loss"] == losses[0]["val_loss"]
    expected = losses[0]["train_loss"]
    if stop.batch is not None:  # the step at which the power went was done, but not yet logged
        expected = [pair for pair in expected if pair in losses[1]["train_loss"]]
        assert len(expected) >= len(losses[0]["train_loss"]) - 1
    assert losses[1]["train_loss"] == expected


def test_a_resume_keeps_the_rows_of_the_first_part(tmp_path: Path) -> None:
    interrupted(tmp_path / "run", Stop(0), *QUICK)
    before = table(tmp_path / "run")
    assert len(before) == 10
    job("pretrain", tmp_path / "run", "resume=true").run()
    assert table(tmp_path / "run")[:10] == before


def test_resuming_a_finished_run_changes_nothing_that_was_computed(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(run, folder)
    before = json.loads((folder / "results.json").read_text())
    job("pretrain", folder, "resume=true").run()
    assert_same_weights(run, folder)
    assert json.loads((folder / "results.json").read_text()) == before


def test_a_resume_reads_the_weights_once(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(run, folder)
    whole: list[Path] = []
    load = torch.load

    def spy(path: Any, *given: Any, **options: Any) -> Any:
        if not options.get("mmap"):
            whole.append(path)
        return load(path, *given, **options)

    monkeypatch.setattr(torch, "load", spy)
    job("pretrain", folder, "resume=true").run()
    assert len(whole) == 1


def test_what_is_measured_after_training_is_measured_on_the_device(tmp_path: Path) -> None:
    # Lightning moves the module to the CPU when its trainer is done.
    prepared = job("pretrain", tmp_path / "run", *QUICK, "callbacks.rank=true", "callbacks.knn_times=0", "epochs=1")
    moves: list[Any] = []
    module, measurements = prepared.module, prepared.observers.measurements
    to, cpu, results = module.to, module.cpu, measurements.results
    seen: list[Any] = []
    module.to = lambda *given, **options: (moves.append(given[0]), to(*given, **options))[1]
    module.cpu = lambda: (moves.append("off"), cpu())[1]
    measurements.results = lambda *given: (seen.append(moves[-1]), results(*given))[1]
    prepared.run()
    assert "off" in moves
    assert seen == [prepared.trainer.strategy.root_device]


def test_another_rate_at_a_resume_is_refused_with_both_values(run: Path) -> None:
    before = contents(run)
    stored = OmegaConf.load(run / "config.yaml").optim.base_lr
    with pytest.raises(ValueError, match=rf"optim\.base_lr=0\.5 differs from the {stored} that"):
        job("pretrain", run, "resume=true", "optim.base_lr=0.5")
    assert contents(run) == before


def test_nothing_is_written_beside_the_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cwd = tmp_path / "cwd"
    cwd.mkdir()
    monkeypatch.chdir(cwd)
    job("pretrain", tmp_path / "odd 'run' dir", *few_digits(), "epochs=1").run()
    assert list(cwd.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"cwd", "odd 'run' dir"}


def test_preparing_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    job("pretrain", None)
    job("pretrain", tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_unlabelled_images_is_enough(tmp_path: Path) -> None:
    write_folder(tmp_path / "it's photos" / "2024", 40, 30, 40)
    # Damaged ones among them are passed over, with their names.
    (tmp_path / "it's photos" / "broken.jpg").write_bytes(b"garbage" * 9)
    escaped = str(tmp_path / "it's photos").replace("'", r"\'")
    prepared = job(
        "pretrain", tmp_path / "run", "data=folder", f"data.root='{escaped}'", "data.num_workers=0", "epochs=1"
    )
    with pytest.warns(UserWarning, match=r"broken\.jpg cannot be read"):
        results = prepared.run()
    assert math.isfinite(results["val_loss"])
    assert "knn_top1" not in results
    assert "No labels, so no word" in (tmp_path / "run" / "report.html").read_text()


def test_a_rectangle_in_colour_trains(tmp_path: Path) -> None:
    write_folder(tmp_path / "photos", 40, 30, 50)
    prepared = job(
        "pretrain",
        tmp_path / "run",
        "data=folder",
        f"data.root={tmp_path / 'photos'}",
        "data.image_size=[16,24]",
        "model.patch_size=8",
        "masking.ratio=0.5",
        "epochs=1",
        "data.num_workers=0",
    )
    assert math.isfinite(prepared.run()["val_loss"])
    assert mae.load_autoencoder(tmp_path / "run").grid == (2, 3)


@pytest.mark.parametrize("override", ["objective.normalize=false", "model.positions=learned"])
def test_variants_train(tmp_path: Path, override: str) -> None:
    results = job("pretrain", tmp_path / "run", *BARE, "epochs=1", override).run()
    loss = [value for _, value in read_metrics(tmp_path / "run" / "metrics.csv")["train_loss"]]
    assert math.isfinite(results["val_loss"])
    assert loss[-1] < loss[0]


def test_checkpointed_gradients_are_the_same_gradients(tmp_path: Path) -> None:
    weights: list[Tensor] = []
    for flag in ("false", "true"):
        prepared = job("pretrain", tmp_path / flag, *QUICK, "epochs=1", f"trainer.grad_checkpointing={flag}")
        prepared.fit()
        weights.append(checkpoint(tmp_path / flag)["state_dict"]["model.encoder.vit.blocks.0.attn.qkv.weight"])
    assert torch.allclose(*weights, atol=1e-5)


@pytest.fixture
def wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Let wandb run offline, in a home of its own; give the function that ends its run, as a process does."""
    module = pytest.importorskip("wandb")
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")  # and puts back what lightning sets
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.chdir(home)
    yield module.finish
    module.finish()
    module.teardown()


WANDB = ("logger=wandb", "logger.offline=true")


def wandb_runs(folder: Path) -> list[str]:
    """Return the ids of the offline runs in a run folder: offline-run-TIME-ID, and -1 behind it for a second in one second."""
    return [path.name.split("-")[3] for path in (folder / "wandb").glob("offline-run-*")]


def wandb_id(folder: Path) -> str:
    return str(yaml.safe_load((folder / "config.yaml").read_text())["logger"]["id"])


def test_wandb_writes_into_the_run_folder_alone(tmp_path: Path, wandb: Callable[[], None]) -> None:
    job("pretrain", tmp_path / "run", *QUICK, *WANDB, "epochs=1").run()
    wandb()
    assert len(wandb_runs(tmp_path / "run")) == 1
    assert (tmp_path / "run" / "metrics.csv").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"run", "home"}
    assert [str(path.relative_to(tmp_path)) for path in (tmp_path / "home").rglob("*")] == []


def test_a_resume_continues_the_same_wandb_run(tmp_path: Path, wandb: Callable[[], None]) -> None:
    interrupted(tmp_path / "run", Stop(0), *QUICK, *WANDB)
    wandb()
    first = wandb_id(tmp_path / "run")
    job("pretrain", tmp_path / "run", "resume=true").run()
    wandb()
    assert wandb_id(tmp_path / "run") == first
    assert set(wandb_runs(tmp_path / "run")) == {first}


@pytest.mark.slow
def test_runs_of_one_process_are_runs_of_their_own(tmp_path: Path, wandb: Callable[[], None]) -> None:
    # A sweep (-m) runs its jobs one after another in one process.
    for name in ("a", "b"):
        job("pretrain", tmp_path / name, *QUICK, *WANDB, "epochs=1").run()
    ids = [wandb_id(tmp_path / name) for name in ("a", "b")]
    assert ids[0] != ids[1]
    assert [wandb_runs(tmp_path / name) for name in ("a", "b")] == [[ids[0]], [ids[1]]]


@pytest.mark.slow
def test_two_processes_train_as_one_does(run: Path, tmp_path: Path) -> None:
    overrides = [*ENCODER, *DECODER, *QUIET, "trainer.devices=2", "batch_size=128", "run_dir=run"]
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "train_pretrain.py"), *overrides, "epochs=1"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-1000:]
    # Plain DDP: a parameter without a gradient would have ended the run.
    assert "find_unused" not in done.stderr
    folder = tmp_path / "run"
    results = json.loads((folder / "results.json").read_text())
    assert results["steps"] == 10
    assert results["images_seen"] == 1280
    assert {"knn_top1", "probe_top1", "rankme", "knn_top1_random"} <= set(results)

    alone = job("pretrain", tmp_path / "alone", *BARE, "batch_size=128", "epochs=1")
    # The rate follows the effective batch, not the share of a device.
    rates = dict(read_metrics(folder / "metrics.csv")["lr"])
    assert rates[0] == pytest.approx(alone.setting.config.optim.base_lr * 128 / 256, rel=1e-5)
    # 144 validation images in halves, none counted twice: the loss is that of one process.
    alone.module.load_state_dict(checkpoint(folder)["state_dict"])
    (scores,) = alone.trainer.validate(alone.module, datamodule=alone.data, verbose=False)
    assert results["val_loss"] == pytest.approx(scores["val_loss"], rel=1e-5)
    assert {path.name for path in tmp_path.iterdir()} <= {"run", "alone"}


def test_gradients_are_clipped_under_mixed_precision(tmp_path: Path) -> None:
    # Lightning refuses to clip for a fused optimizer, at the first step.
    prepared = job(
        "pretrain", tmp_path / "run", *QUICK, "epochs=1", "optim.clip_norm=0.01", "trainer.precision=bf16-mixed"
    )
    norms: list[float] = []

    class Watch(L.Callback):
        def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            trainer.optimizers[0].register_step_pre_hook(lambda *_: norms.append(norm(pl_module)))

    def norm(module: L.LightningModule) -> float:
        return float(torch.nn.utils.get_total_norm([p.grad for p in module.parameters() if p.grad is not None]))

    prepared.trainer.callbacks.append(Watch())
    prepared.run()
    assert len(norms) == 10
    assert max(norms) <= 0.0101
