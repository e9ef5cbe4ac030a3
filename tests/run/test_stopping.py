"""A run that is stopped in the middle of an epoch goes on with the very next batch."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import yaml

from mae.run.exits import run_job
from mae.training.callbacks.checkpointing import StoppedError
from tests.data.streaming.streamed import write_shards
from tests.runs import BARE, REPOSITORY, few_digits, job

QUICK = (*BARE, *few_digits())
STEPS = 30  # three epochs of ten steps


class Record(L.Callback):
    """Notes which images each step sees, and asks the run to stop after a number of steps, as the shell would."""

    def __init__(self, stop_after: int | None = None, by: signal.Signals = signal.SIGTERM) -> None:
        self.stop_after, self.by = stop_after, by
        self.images: list[list[int]] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.images.append(batch.indices.tolist())
        if trainer.global_step == self.stop_after:
            signal.raise_signal(self.by)


def run(stage: str, folder: Path, *overrides: str, stop_after: int | None = None, **options: Any) -> list[list[int]]:
    prepared = job(stage, folder, *overrides)
    record = Record(stop_after, **options)
    prepared.trainer.callbacks.insert(0, record)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    if stop_after is None:
        prepared.run()
    else:
        with pytest.raises(StoppedError, match=r"stopped at step \d+, which is kept: resume=true run_dir="):
            prepared.run()
    # Whether it ends or is stopped, a run gives the signals back.
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    return record.images


def state(folder: Path) -> dict[str, torch.Tensor]:
    content = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    optimizer = content["optimizer_states"][0]["state"]
    moments = {f"{key}/{name}": value for key, kept in optimizer.items() for name, value in kept.items()}
    return {**content["state_dict"], **moments}


def assert_same(first: Path, second: Path) -> None:
    a, b = state(first), state(second)
    assert a.keys() == b.keys()
    assert [key for key in a if not torch.equal(torch.as_tensor(a[key]), torch.as_tensor(b[key]))] == []


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[int]]]:
    folder = tmp_path_factory.mktemp("whole") / "run"
    images = run("pretrain", folder, *QUICK, "epochs=3", "+model.options.proj_drop_rate=0.2")
    assert len(images) == STEPS
    return folder, images


# The last of an epoch, and one amid an epoch; the others take as long.
@pytest.mark.parametrize(
    "step", [10, 15, *(pytest.param(step, marks=pytest.mark.slow) for step in (1, 2, 5, 9, 11, 20, 24, 29))]
)
def test_a_run_stopped_after_any_step_ends_as_if_it_had_never_stopped(
    whole: tuple[Path, list[list[int]]], tmp_path: Path, step: int
) -> None:
    folder, overrides = tmp_path / "run", (*QUICK, "epochs=3", "+model.options.proj_drop_rate=0.2")
    before = run("pretrain", folder, *overrides, stop_after=step)
    assert len(before) == step
    if step == 29:
        assert not (folder / "results.json").exists()
    after = run("pretrain", folder, "resume=true", "epochs=3")
    assert before + after == whole[1]
    assert_same(whole[0], folder)


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(("data.num_workers=2",), marks=pytest.mark.slow),
        ("trainer.accumulate=2",),
        pytest.param(("data.repeats=4", "epochs=1"), marks=pytest.mark.slow),
    ],
    ids=["workers", "accumulation", "repeats"],
)
def test_loading_in_other_ways_goes_on_as_exactly(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    images = run("pretrain", tmp_path / "whole", *QUICK, *overrides)
    before = run("pretrain", tmp_path / "parts", *QUICK, *overrides, stop_after=7, by=signal.SIGINT)
    after = run("pretrain", tmp_path / "parts", *overrides, "resume=true")
    assert before + after == images
    assert_same(tmp_path / "whole", tmp_path / "parts")


def test_a_finetuning_goes_on_within_an_epoch(whole: tuple[Path, list[list[int]]], tmp_path: Path) -> None:
    overrides = (
        *few_digits(),
        f"checkpoint={whole[0]}",
        "protocol=finetune",
        "protocol.ema=0.9",
    )
    overrides += ("protocol.mixup=0.8", "protocol.erasing=0.25", "protocol.rand_augment=5")
    images = run("finetune", tmp_path / "whole", *overrides)
    before = run("finetune", tmp_path / "parts", *overrides, stop_after=13)
    after = run("finetune", tmp_path / "parts", "resume=true")
    assert before + after == images
    assert_same(tmp_path / "whole", tmp_path / "parts")
    results = [json.loads((tmp_path / name / "results.json").read_text()) for name in ("whole", "parts")]
    assert results[0]["test_top1"] == results[1]["test_top1"]


def test_a_checkpoint_is_kept_every_few_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = job("pretrain", tmp_path / "run", *QUICK, "trainer.save_minutes=1", "epochs=1")
    saved: list[int] = []
    minutes = iter(range(1000))
    monkeypatch.setattr("mae.training.callbacks.checkpointing.time.monotonic", lambda: 60 * 0.3 * next(minutes))
    save = prepared.trainer.save_checkpoint
    monkeypatch.setattr(
        prepared.trainer, "save_checkpoint", lambda *given: (saved.append(prepared.trainer.global_step), save(*given))
    )
    prepared.run()
    assert len(saved) >= 3
    assert saved[0] < 6


@pytest.mark.slow
def test_a_signal_to_the_script_is_one_line_and_the_command_that_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, str(REPOSITORY / "train_pretrain.py"), f"run_dir={folder}", "epochs=400", *BARE]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    while not (folder / "checkpoints" / "last.ckpt").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"resume=true run_dir={folder} goes on" in errors
    assert "Traceback" not in errors
    kept = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert f"stopped at step {kept['global_step']:,}," in errors


class Remove(L.Callback):
    """Takes the shards away after a number of steps."""

    def __init__(self, shards: list[Path], after: int) -> None:
        self.shards, self.after = shards, after

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.after:
            for shard in self.shards:
                shard.unlink()


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_shards_that_go_away_are_one_line_and_the_steps_are_kept(
    tmp_path: Path, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    pattern = write_shards(tmp_path / "shards", 6)
    given = (
        "data=webdataset",
        f"data.root='{pattern}'",
        "data.images=48",
        f"data.num_workers={workers}",
        "batch_size=4",
    )
    prepared = job("pretrain", tmp_path / "run", *BARE, *given, "data.buffer=1", "data.lanes=2")
    prepared.trainer.callbacks.insert(0, Remove(sorted((tmp_path / "shards").glob("*.tar")), 2))
    with pytest.raises(SystemExit) as ended:
        run_job(prepared)
    assert ended.value.code == 2
    errors = capsys.readouterr().err
    assert re.search(r"^error: .*\.tar", errors, re.MULTILINE)
    assert "Traceback" not in errors
    kept = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert kept["global_step"] >= 2


def test_a_run_of_an_earlier_version_goes_on_and_can_be_scored(tmp_path: Path) -> None:
    # Its config.yaml lacks what came since.
    folder = tmp_path / "run"
    run("pretrain", folder, *QUICK, stop_after=5)
    finished = tmp_path / "tuned"
    job("finetune", finished, *few_digits(), f"checkpoint={folder}/checkpoints/last.ckpt").run()
    for path in (folder / "config.yaml", finished / "config.yaml"):
        config = yaml.safe_load(path.read_text())
        for key in ("bits", "repeats", "decode", "max_unreadable"):
            del config["data"][key]
        del config["trainer"]["save_minutes"]
        path.write_text(yaml.safe_dump(config))
    assert job("pretrain", folder, "resume=true").run()["steps"] == 20
    scored = job(
        "finetune", None, "evaluate_only=true", f"checkpoint={finished}", f"run_dir={tmp_path / 'scored'}"
    ).run()
    assert scored["test_top1"] == json.loads((finished / "results.json").read_text())["test_top1"]


def test_an_epoch_of_one_step_can_be_stopped(tmp_path: Path) -> None:
    # The last step of an epoch has its checkpoint after validation; here every step is one.
    overrides = (*QUICK, "batch_size=160", "epochs=4")
    images = run("pretrain", tmp_path / "whole", *overrides)
    before = run("pretrain", tmp_path / "parts", *overrides, stop_after=2)
    assert len(before) == 2
    assert not (tmp_path / "parts" / "results.json").exists()
    assert before + run("pretrain", tmp_path / "parts", *overrides, "resume=true") == images
    assert_same(tmp_path / "whole", tmp_path / "parts")


def test_a_stop_at_the_very_last_step_leaves_the_scores_to_a_resume(tmp_path: Path) -> None:
    before = run("pretrain", tmp_path / "run", *QUICK, "epochs=2", stop_after=20)
    assert len(before) == 20
    assert not (tmp_path / "run" / "results.json").exists()
    assert run("pretrain", tmp_path / "run", "resume=true") == []
    assert json.loads((tmp_path / "run" / "results.json").read_text())["steps"] == 20


def test_a_step_whose_weights_are_no_numbers_is_not_said_to_be_kept(tmp_path: Path) -> None:
    class Spoil(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
            with torch.no_grad():
                pl_module.model.encoder.vit.norm.weight.fill_(torch.nan)
            signal.raise_signal(signal.SIGTERM)

    prepared = job("pretrain", tmp_path / "run", *BARE)
    prepared.trainer.callbacks.insert(0, Spoil())
    with pytest.raises(StoppedError, match=r"stopped at step 1, whose weights are not numbers, and not kept: .*Lower"):
        prepared.run()
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_other_batches_amid_an_epoch_are_refused_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("pretrain", tmp_path / "run", *QUICK, stop_after=5)
    with pytest.raises(SystemExit):
        run_job(job("pretrain", tmp_path / "run", "resume=true", "trainer.accumulate=2"))
    errors = capsys.readouterr().err
    assert "stopped amid an epoch of 10 batches of 16, from 160 images, and now it has 20 batches of 8" in errors
    assert "Traceback" not in errors
