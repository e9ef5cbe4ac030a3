"""Many runs by one command (-m): a folder each, and a table of all of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mae.cli.app import write_tables
from mae.cli.script import script
from tests.downstream.test_results_table import assert_mean, rows
from tests.runs import ENCODER, REPOSITORY, shared_pretraining

SMALL = ("trainer.accelerator=cpu", "trainer.progress=false", "epochs=1", "labels_per_class=2", "baselines=false")


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Give the working folder of a real sweep into ``sweep``, and what became of it."""
    folder = tmp_path_factory.mktemp("swept")
    checkpoint = shared_pretraining(tmp_path_factory)
    overrides = (f"checkpoint={checkpoint}", "seed=0,1", "protocol=linear_probe,finetune", "run_dir=sweep")
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "train_finetune.py"), "-m", *overrides, *SMALL],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return folder, done


@pytest.mark.slow
def test_a_sweep_ends_with_its_table(swept: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = swept
    assert done.returncode == 0, done.stderr[-1000:]
    sweep = folder / "sweep"
    assert {path.name for path in sweep.iterdir()} == {"0", "1", "2", "3", "table.md", "table.csv", "multirun.yaml"}
    accuracies: dict[str, list[float]] = {}
    seeds = []
    for number in range(4):
        results = json.loads((sweep / str(number) / "results.json").read_text())
        accuracies.setdefault(results["protocol"], []).append(results["test_top1"])
        seeds.append(OmegaConf.load(sweep / str(number) / "config.yaml").seed)
    assert sorted(seeds) == [0, 0, 1, 1]
    found = rows(sweep)
    assert [(row["protocol"], row["weights"], row["labels"], row["runs"]) for row in found] == [
        (protocol, "run", "2 per class", "2") for protocol in accuracies
    ]
    for row in found:
        assert_mean(row, "top1", accuracies[row["protocol"]])
    assert "### digits, 360 test images" in (sweep / "table.md").read_text()
    assert "linear_probe" in done.stdout


@pytest.mark.slow
def test_a_sweep_writes_nothing_beside_its_folder(swept: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    assert sorted(str(path.relative_to(swept[0])) for path in swept[0].glob("*")) == ["sweep"]


Sweep = Callable[..., str]


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Sweep:
    """Run the script with -m in this process; return what it said as errors."""

    def run(*overrides: str, status: int) -> str:
        monkeypatch.chdir(tmp_path)
        given = [*ENCODER, "checkpoint=null", "run_dir=sweep", *SMALL, *overrides]
        monkeypatch.setattr(sys, "argv", ["train_finetune.py", "-m", *given])
        with pytest.raises(SystemExit) as ended:
            script("finetune", after_sweep=write_tables)()
        assert ended.value.code == status
        return capsys.readouterr().err

    return run


def test_a_job_that_is_refused_does_not_stop_the_others(sweep: Sweep, tmp_path: Path) -> None:
    said = sweep("batch_size=10,100000,20", status=2)
    assert said == "error: batch_size=100000 is more than the 20 training images: choose 20 or less\n"
    folder = tmp_path / "sweep"
    assert {path.name for path in folder.iterdir()} == {"0", "2", "table.md", "table.csv", "multirun.yaml"}
    assert [row["setting"].split()[0] for row in rows(folder)] == ["batch_size=10", "batch_size=20"]


def test_several_devices_are_refused_in_a_sweep(sweep: Sweep, tmp_path: Path) -> None:
    said = sweep("trainer.devices=2", "seed=0,1", status=2)
    line = "error: -m runs each job on one device: leave trainer.devices=2 out, or start them one by one\n"
    assert said == 2 * line
    assert [path.name for path in (tmp_path / "sweep").iterdir()] == ["multirun.yaml"]


def test_a_run_alone_chooses_its_folder_and_ends_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train_finetune.py", *ENCODER, "checkpoint=null", *SMALL])
    told: list[Path] = []
    script("finetune", after_sweep=told.extend)()
    (folder,) = (tmp_path / "runs" / "finetune").iterdir()
    assert (folder / "results.json").is_file()
    assert told == []
