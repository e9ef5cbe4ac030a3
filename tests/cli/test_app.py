"""The `mae` command."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from mae.cli import demo
from mae.cli.app import app
from mae.cli.demo import run_demo
from tests.runs import DECODER, ENCODER, QUIET, shared_pretraining

SMALL = [*ENCODER, *QUIET, "epochs=1"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_pretrain_is_the_script(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["pretrain", "run_dir=run", *SMALL, *DECODER])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "run" / "results.json").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


def test_finetune_is_the_script(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    checkpoint = shared_pretraining(tmp_path_factory)
    done = CliRunner().invoke(
        app, ["finetune", "run_dir=run", f"checkpoint={checkpoint}", *QUIET, "epochs=1", "labels_per_class=2"]
    )
    assert done.exit_code == 0, done.output
    assert (tmp_path / "run" / "results.json").is_file()


@pytest.mark.parametrize("command", ["pretrain", "finetune"])
def test_errors_are_one_line_and_status_two(tmp_path: Path, command: str) -> None:
    done = CliRunner().invoke(app, [command, "optim.base_lrr=1"])
    assert done.exit_code == 2
    assert done.stderr == "error: optim.base_lrr is not an option here: did you mean optim.base_lr?\n"
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_without_a_command_help_is_shown() -> None:
    output = CliRunner().invoke(app, []).output
    assert all(command in output for command in ("pretrain", "finetune", "demo"))


def test_the_demo_replaces_a_demo_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("three years of work")
    done = CliRunner().invoke(app, ["demo", "--folder", "mine"])
    assert done.exit_code == 2
    assert "mine holds something else than a demo" in done.stderr
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "three years of work"


def test_a_folder_named_pretrain_does_not_make_a_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo.pretrain, "prepare", lambda config: pytest.fail("the demo has begun"))
    (tmp_path / "mine" / "pretrain").mkdir(parents=True)
    (tmp_path / "mine" / "thesis.txt").write_text("three years of work")
    with pytest.raises(ValueError, match="something else than a demo"):
        run_demo(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()
