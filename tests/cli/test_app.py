"""The `mae` command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mae.cli import demo
from mae.cli.app import app
from mae.cli.demo import run_demo
from tests.runs import DECODER, ENCODER, QUIET, REPOSITORY, shared_pretraining

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


def test_errors_are_one_line_and_status_two(tmp_path: Path) -> None:
    for command in ("pretrain", "finetune"):
        for given in (["optim.base_lrr=1"], ["optim.base_lrr=1", "--explain"], ["optim.base_lrr=1", "--help"]):
            done = CliRunner().invoke(app, [command, *given])
            assert done.exit_code == 2
            assert done.stderr == "error: optim.base_lrr is not an option here: did you mean optim.base_lr?\n"
            assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_options_of_the_script_alone_are_said_to_be_so() -> None:
    for given in (["-m", "seed=0,1"], ["--cfg", "job"], ["--bogus"]):
        done = CliRunner().invoke(app, ["pretrain", *given])
        assert done.exit_code == 2 and done.stdout == ""
        assert done.stderr.startswith(f"error: mae pretrain knows no {given[0]}: ") and done.stderr.count("\n") == 1


def test_help_shows_every_key_and_explain_who_chose_it(tmp_path: Path) -> None:
    for command, key in (("pretrain", "masking.ratio"), ("finetune", "protocol.sweep")):
        shown = CliRunner().invoke(app, [command, "--help"])
        assert shown.exit_code == 0, shown.output
        assert f"python train_{command}.py" in shown.stdout
        assert key in shown.stdout
    explained = CliRunner().invoke(app, ["pretrain", "--explain", "seed=5", *SMALL, *DECODER])
    assert explained.exit_code == 0, explained.output
    assert ["seed=5", "you"] in [line.split()[:2] for line in explained.stdout.splitlines()]
    assert list(tmp_path.iterdir()) == []


def test_options_of_ones_own_are_found(tmp_path: Path) -> None:
    (tmp_path / "mine" / "masking").mkdir(parents=True)
    (tmp_path / "mine" / "masking" / "half.yaml").write_text("# Half of the patches.\nname: random\nratio: 0.5\n")
    given = ["pretrain", "--config-dir", "mine", "masking=half"]
    explained = CliRunner().invoke(app, [*given, "--explain", *SMALL, *DECODER])
    assert ["masking.ratio=0.5", "config", "file", "masking=half:"] in [
        line.split()[:4] for line in explained.stdout.splitlines()
    ], explained.output


CODE = """
import sys
import mae.cli.app
print(sorted({"torch", "hydra", "omegaconf", "lightning", "pydantic", "timm", "numpy"} & set(sys.modules)))
"""


def test_the_command_itself_loads_nothing_heavy() -> None:
    # `mae --help` took 4.5 seconds.
    done = subprocess.run([sys.executable, "-c", CODE], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr


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
