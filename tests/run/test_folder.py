"""Which folder a run takes, and what it keeps there."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import torch

from mae.run.folder import ENVIRONMENT, RunFolder, choose_run_folder, environment, shared_with_children


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_without_a_name_the_time_is_the_name(stage: str) -> None:
    folder = choose_run_folder(None, stage, resume=False)
    assert re.fullmatch(rf"runs/{stage}/\d{{4}}-\d\d-\d\d_\d\d-\d\d-\d\d", folder.path.as_posix())
    assert not folder.path.exists()


def test_a_name_is_taken_as_it_is() -> None:
    assert choose_run_folder("some where/run", "pretrain", resume=False).path == Path("some where/run")


def test_children_take_the_folder_of_their_parent() -> None:
    folder = choose_run_folder(None, "pretrain", resume=False)
    with shared_with_children(folder):
        assert choose_run_folder(None, "pretrain", resume=False).path == folder.path
    assert choose_run_folder("other", "pretrain", resume=False).path == Path("other")


def test_the_variable_is_put_back_after_an_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(Path("run"), resume=False)
    with pytest.raises(RuntimeError), shared_with_children(folder):
        raise RuntimeError
    assert ENVIRONMENT not in os.environ
    monkeypatch.setenv(ENVIRONMENT, "outer")
    with shared_with_children(folder):
        assert os.environ[ENVIRONMENT] == "run"
    assert os.environ[ENVIRONMENT] == "outer"


def test_processes_started_from_outside_must_be_told_their_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    # Each would name its own by the second in which it started.
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="run_dir=DIR must name the folder they share"):
        choose_run_folder(None, "pretrain", resume=False)
    assert choose_run_folder("shared", "pretrain", resume=False).path == Path("shared")


def test_a_started_run_is_not_started_again() -> None:
    RunFolder(Path("run"), resume=False).start({"seed": 0, "data": {"mean": (0.5,)}})
    with pytest.raises(ValueError, match="run_dir=run already holds a run"):
        RunFolder(Path("run"), resume=False)
    assert RunFolder(Path("run"), resume=True).stored_config == {"seed": 0, "data": {"mean": [0.5]}}


def test_a_folder_with_something_else_is_no_run() -> None:
    Path("notes").mkdir()
    Path("notes/a.txt").write_text("mine")
    folder = RunFolder(Path("notes"), resume=False)
    assert folder.stored_config is None
    assert folder.last_checkpoint is None
    assert folder.resume_step() is None
    assert folder.earlier_results() == {}


def test_the_step_of_a_resume_is_the_checkpoints() -> None:
    Path("run/checkpoints").mkdir(parents=True)
    torch.save({"global_step": 17, "state_dict": {}}, "run/checkpoints/last.ckpt")
    assert RunFolder(Path("run"), resume=True).resume_step() == 17


def test_a_file_is_written_complete_or_not_at_all() -> None:
    folder = RunFolder(Path("run"), resume=False)
    folder.start({})
    folder.write_json("results.json", {"a": 1})
    with pytest.raises(TypeError):
        folder.write_json("results.json", {"a": object()})
    assert json.loads(Path("run/results.json").read_text()) == {"a": 1}
    assert RunFolder(Path("run"), resume=True).earlier_results() == {"a": 1}
    assert {path.name for path in Path("run").iterdir()} == {"config.yaml", "environment.json", "results.json"}


def test_the_environment_is_plain_and_needs_no_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    described = environment()
    assert json.loads(json.dumps(described)) == described
    assert described["commit"] is None
    assert described["torch"] == torch.__version__
