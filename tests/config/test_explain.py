"""``--explain`` and ``--help``: each key, its value, who chose it and why, and what may stand there."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from rich.console import Console

from mae.cli.script import script
from mae.config.composing import compose, config_folder
from mae.config.explain import Explained, explain, print_explanation, shown
from mae.config.help import print_help
from mae.config.keys import keys_of
from mae.config.mistakes import Groups
from mae.config.reading import ROOTS, leaves
from mae.run.pretrain import prepare
from tests.runs import ENCODER, QUIET


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def explained(*overrides: str) -> dict[str, Explained]:
    job = prepare(compose("pretrain", overrides), overrides)
    rows = explain(job.setting.config, job.setting.choices.made, "pretrain", overrides)
    return {row.key: row for row in rows}


def test_every_key_says_who_chose_it(tmp_path: Path) -> None:
    rows = explained("experiment=digits", "seed=3", "optim.base_lr=0.5", "masking.ratio=0.5", "debug=profiler", *QUIET)
    wanted = {
        "seed": (3, 0, "you"),
        "optim.base_lr": (0.5, None, "you"),
        "masking.ratio": (0.5, 0.75, "you"),
        "epochs": (200, None, "experiment"),
        "model.width": (96, None, "experiment"),
        "decoder.width": (64, None, "experiment"),
        "debug.profiler": (True, False, "config file"),
        "data.num_workers": (0, None, "chosen"),
        "optim.weight_decay": (0.05, 0.05, "default"),
        "trainer.precision": ("32-true", "auto", "chosen"),
    }
    assert {key: (rows[key].value, rows[key].default, rows[key].by) for key in wanted} == wanted
    assert rows["data.num_workers"].why == "images in memory"
    assert "measured on 1,024 training images" == rows["data.mean"].why == rows["data.std"].why
    assert all(len(row.why) > 3 for row in rows.values())
    assert all("null" in row.why for row in rows.values() if row.value is None)
    assert list(tmp_path.iterdir()) == []


def test_what_nobody_gave_is_chosen_with_its_reason() -> None:
    rows = explained(*ENCODER, *QUIET)
    assert rows["epochs"].by == "chosen" and "minutes on two cores" in rows["epochs"].why
    assert rows["model.patch_size"].by == "chosen" and "images of 8 px" in rows["model.patch_size"].why
    assert rows["decoder.depth"].why == "light, for an encoder 32 wide"
    assert rows["run_dir"].by == "chosen"


def test_the_table_is_readable_on_a_terminal_and_in_a_pipe() -> None:
    rows = [
        Explained("epochs", 5, None, "chosen", "few images " * 20),
        Explained("optim.betas", [0.9, 0.95], [0.9, 0.95], "default", "x"),
        Explained("seed", 3, 0, "you", "y"),
        Explained("a_key_that_leaves_little_room_for_its_reason", 5, None, "chosen", "few images " * 20),
    ]
    piped, terminal = io.StringIO(), io.StringIO()
    print_explanation(rows, Console(file=piped))
    print_explanation(rows, Console(file=terminal, force_terminal=True, width=100, color_system=None))
    assert len(piped.getvalue().splitlines()) == 5  # a line for each key, to be searched
    assert "optim.betas=[0.9, 0.95]" in piped.getvalue() and "y (default: 0)" in piped.getvalue()
    for text in (piped, terminal):
        assert all(line == line.rstrip() for line in text.getvalue().splitlines())
    assert max(map(len, terminal.getvalue().splitlines())) <= 100
    assert (shown(None), shown(True), shown(1e-4), shown([1, None])) == ("null", "true", "0.0001", "[1, null]")


def test_the_script_explains_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["train_pretrain.py", "epochs=3", "--explain", *ENCODER, *QUIET])
    script("pretrain")()
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["epochs=3", "you"] in [line[:2] for line in lines]
    assert ["optim.weight_decay=0.05", "default"] in [line[:2] for line in lines]
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_a_folder_of_its_own_ends_well(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[object] = []
    monkeypatch.setattr("mae.cli.script.run_job", ran.append)
    monkeypatch.setattr(sys, "argv", ["train_pretrain.py", "epochs=1", *ENCODER, *QUIET])
    script("pretrain")()
    assert len(ran) == 1


def test_a_group_of_the_other_stage_and_a_deviation_of_zero_are_refused() -> None:
    with pytest.raises(ValueError, match=r"masking.ratio=0.5 is not an option here: train_finetune.py has no masking"):
        compose("finetune", ["checkpoint=null", "masking.ratio=0.5"])
    with pytest.raises(ValueError, match=r"data.std=0 is not above 0"):
        compose("pretrain", ["data.mean=[0.5]", "data.std=[0]"])


def test_options_that_do_not_exist_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for given in ("--bogus", "--config-dir"):
        monkeypatch.setattr(sys, "argv", ["train_pretrain.py", given])
        with pytest.raises(SystemExit) as ended:
            script("pretrain")()
        error = capsys.readouterr().err
        assert ended.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1 and given in error


@pytest.mark.parametrize("root", ROOTS)
def test_help_shows_examples_groups_with_their_options_and_every_key(root: str) -> None:
    file = io.StringIO()
    print_help(root, ["experiment=digits"] if root == "pretrain" else [], None, Console(file=file))
    text = file.getvalue()
    assert text.count(f"python train_{root}.py ") > 4
    groups = Groups([config_folder()])
    options = [("data", "folder"), ("model", "tiny"), ("debug", "overfit")]
    options += [("masking", "random")] if root == "pretrain" else [("protocol", "features"), ("augmentation", "none")]
    for group, option in options:
        lines = groups.files(group)[option].read_text().splitlines()
        comment = next(line for line in lines if "@package" not in line)
        assert comment.removeprefix("# ").partition(". ")[0] in text
    shown_at = {line.split()[0].partition("=")[0]: line for line in text.splitlines() if line}
    for key in keys_of(compose(root, ["experiment=digits"] if root == "pretrain" else [])):
        assert key.help in shown_at[key.name] and shown(key.value) in shown_at[key.name]
        assert key.kind.removesuffix(" or null") in shown_at[key.name]
        assert (key.filled_by or "") in shown_at[key.name]


def test_the_keys_are_those_of_the_config_and_arguments_that_no_file_lists() -> None:
    names = {key.name for key in keys_of(compose("pretrain"))}
    assert set(leaves(compose("pretrain").plain())) <= names
    assert {"decoder.mlp_ratio", "model.norm_eps", "masking.ratio"} <= names
