"""Run folders of the code before the redraw go on, load, are scored and tabled as if nothing had happened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import mae
from mae.cli.app import write_tables
from tests.run.test_stopping import Record, assert_same
from tests.runs import DECODER, ENCODER, QUIET, REPOSITORY, job

pytestmark = pytest.mark.slow

COMMIT = "5efef60"
"""The last one before the redraw."""
SECOND_STAGES = {
    "linear_probe": ("protocol=linear_probe",),
    "finetune": ("protocol=finetune", "protocol.ema=0.9", "protocol.mixup=0.8"),
}
LABELS = ("labels_per_class=40", "batch_size=64", "epochs=4", "baselines=false")
RUN_JOBS = """
import json, signal, sys
import lightning as L
from mae import finetune, pretrain
from mae.assembly import compose
from mae.training.stopping import StoppedError

class Record(L.Callback):
    def __init__(self, stop_after):
        self.stop_after, self.images = stop_after, []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.images.append(batch.indices.tolist())
        if trainer.global_step == self.stop_after:
            signal.raise_signal(signal.SIGTERM)

for stage, folder, stop_after, overrides in json.loads(sys.argv[1]):
    given = [f"run_dir={folder}", *overrides]
    job = {"pretrain": pretrain, "finetune": finetune}[stage].prepare(compose(stage, given), given)
    record = Record(stop_after)
    job.trainer.callbacks.insert(0, record)
    try:
        job.run()
    except StoppedError:
        assert stop_after
    with open(folder + ".json", "w") as file:
        json.dump(record.images, file)
"""


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with runs of the old code: each stage whole, and stopped within an epoch."""
    folder = tmp_path_factory.mktemp("old")
    packed = folder / "code.tar"
    with packed.open("wb") as file:
        archived = subprocess.run(
            ["git", "archive", COMMIT, "mae", "conf"], cwd=REPOSITORY, stdout=file, stderr=subprocess.PIPE, check=False
        )
    if archived.returncode:
        pytest.skip(f"commit {COMMIT} is not in this clone: {archived.stderr.decode().strip()}")
    code = folder / "code"
    code.mkdir()
    subprocess.run(["tar", "-xf", str(packed), "-C", str(code)], check=True)
    pretraining = (*ENCODER, *DECODER, *QUIET, "epochs=4")
    jobs: list[tuple[str, str, int | None, tuple[str, ...]]] = [
        ("pretrain", f"{folder}/pretrain_whole", None, pretraining),
        ("pretrain", f"{folder}/pretrain_parts", 25, pretraining),
    ]
    for name, overrides in SECOND_STAGES.items():
        given = (f"checkpoint={folder}/pretrain_whole", *overrides, *LABELS, *QUIET)
        jobs += [
            ("finetune", f"{folder}/{name}_whole", None, given),
            ("finetune", f"{folder}/{name}_parts", 8, given),
        ]
    done = subprocess.run(
        [sys.executable, "-c", RUN_JOBS, json.dumps(jobs)],
        cwd=code,
        env={**os.environ, "PYTHONPATH": str(code)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def images(run: Path) -> list[list[int]]:
    seen: list[list[int]] = json.loads(run.with_name(f"{run.name}.json").read_text())
    return seen


def results(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "results.json").read_text())
    return content


def goes_on(stage: str, whole: Path, parts: Path) -> None:
    """Resume the stopped run, and compare it with the whole one: images, weights and results."""
    assert not (parts / "results.json").exists()
    prepared = job(stage, parts, "resume=true", "epochs=4")
    prepared.trainer.callbacks.insert(0, record := Record())
    prepared.run()
    assert images(parts) + record.images == images(whole)
    assert_same(whole, parts)
    timed = {"images_per_second", "waiting_share", "seconds"}
    ours, theirs = results(parts), results(whole)
    # kNN is whitened now, the probe solved, and too short a run is called so.
    timed |= {key for key in theirs if key.startswith(("knn_top1", "probe_top1", "alarms"))}
    assert {key: ours[key] for key in theirs.keys() - timed} == {key: theirs[key] for key in theirs.keys() - timed}


def test_a_pretraining_goes_on_with_the_same_images_behind_the_masks_of_today(old: Path) -> None:
    whole, parts = old / "pretrain_whole", old / "pretrain_parts"
    prepared = job("pretrain", parts, "resume=true", "epochs=4")
    prepared.trainer.callbacks.insert(0, record := Record())
    prepared.run()
    assert images(parts) + record.images == images(whole)
    ours, theirs = results(parts), results(whole)
    assert (ours["steps"], ours["epochs"], ours["parameters"]) == tuple(
        theirs[key] for key in ("steps", "epochs", "parameters")
    )
    assert ours["val_loss"] == pytest.approx(theirs["val_loss"], rel=0.05)


@pytest.mark.parametrize("name", SECOND_STAGES)
def test_a_second_stage_goes_on_and_ends_as_if_the_old_code_had_done_it_all(old: Path, name: str) -> None:
    goes_on("finetune", old / f"{name}_whole", old / f"{name}_parts")


@pytest.mark.parametrize("run", ["pretrain_whole", *(f"{name}_whole" for name in SECOND_STAGES)])
def test_its_encoder_loads_from_the_run_as_from_the_folder_that_it_wrote(old: Path, run: str) -> None:
    pixels = torch.randn(2, 1, 16, 16)
    tokens = [mae.load_encoder(path).eval()(pixels) for path in (old / run, old / run / "encoder")]
    assert torch.equal(*tokens)


def test_its_autoencoder_loads_with_the_weights_of_the_checkpoint(old: Path) -> None:
    state = torch.load(old / "pretrain_whole" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    model = mae.load_autoencoder(old / "pretrain_whole" / "checkpoints" / "last.ckpt")
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[f"model.{key}"]), key


@pytest.mark.parametrize("name", SECOND_STAGES)
def test_its_classifier_is_scored_as_it_was(old: Path, tmp_path: Path, name: str) -> None:
    run = old / f"{name}_whole"
    scored = job("finetune", tmp_path / "scored", "evaluate_only=true", f"checkpoint={run}").run()
    assert scored["test_top1"] == results(run)["test_top1"]


def test_its_second_stages_stand_in_a_table(old: Path, tmp_path: Path) -> None:
    runs = [old / f"{name}_whole" for name in SECOND_STAGES]
    write_tables(runs, tmp_path)
    table = (tmp_path / "table.md").read_text()
    for run in runs:
        assert f"{100 * results(run)['test_top1']:.1f}" in table
