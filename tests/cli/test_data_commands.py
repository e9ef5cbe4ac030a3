"""The `mae data` commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from mae.cli.app import app
from mae.config.composing import compose
from tests.data.drawing import write_folder, write_image
from tests.data.tarring import open_shards, write_classes
from tests.runs import DECODER, ENCODER, QUIET


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def data(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["data", *arguments, *([] if arguments[0] == "--help" else ["--workers", "0"])])


def test_help_names_the_commands() -> None:
    assert all(command in data("--help").output for command in ("pack", "check", "stats"))


def test_a_folder_is_packed_checked_and_trained_on(tmp_path: Path) -> None:
    write_classes(Path("images"), 10)
    done = data("pack", "images", "shards", "--short-side", "16", "--shard-images", "8")
    assert done.exit_code == 0, done.output
    assert "train    20 images in 3 shards" in done.stdout
    assert data("check", "shards", "--tiny", "8").exit_code == 0
    done = CliRunner().invoke(
        app,
        [
            "pretrain",
            "data=webdataset",
            "data.root=shards",
            "run_dir=run",
            "epochs=1",
            "batch_size=8",
            "data.num_workers=0",
        ]
        + [text for text in (*ENCODER, *QUIET, *DECODER) if not text.startswith(("data", "batch_size", "epochs"))],
    )
    assert done.exit_code == 0, done.output
    assert compose("pretrain", ["data=webdataset"]).data.mean is None
    stored = (tmp_path / "run" / "config.yaml").read_text()
    mean, _ = open_shards(Path("shards")).statistics or ((), ())
    assert all(str(value) in stored for value in mean), "the manifest's statistics are used"


def test_what_is_packed_is_told_by_the_folder(tmp_path: Path) -> None:
    write_folder(Path("images"), 5)
    assert data("pack", "images", "plain").exit_code == 0
    assert data("pack", "plain", "again", "--shard-images", "2").exit_code == 0
    for name, source, shards in (("plain", "folder", 1), ("again", "webdataset", 3)):
        content = json.loads((tmp_path / name / "manifest.json").read_text())
        assert content["source"] == {"source": source, "root": {"plain": "images", "again": "plain"}[name]}
        assert len(content["splits"]["train"]["shards"]) == shards


def test_another_source_is_chosen_by_override() -> None:
    done = data("pack", "-", "digits", "data=digits", "--shard-images", "1000")
    assert done.exit_code == 0, done.output
    splits = open_shards(Path("digits"))
    assert {name: len(source) for name, source in splits.own.items()} == {"train": 1437, "test": 360}
    assert splits.train.classes == tuple("0123456789")


def test_left_out_images_are_said_and_listed(tmp_path: Path) -> None:
    write_folder(Path("images"), 5)
    (tmp_path / "images" / "damaged.png").write_bytes(b"damaged")
    done = data("pack", "images", "shards")
    assert "left out 1 that cannot be read, listed in shards/unreadable.txt" in done.stdout
    assert (tmp_path / "shards" / "unreadable.txt").read_text().startswith("images/damaged.png cannot be read")


def test_check_lists_all_and_fails_where_something_is_unreadable(tmp_path: Path) -> None:
    write_folder(Path("images"), 5)
    write_image(Path("images/again.png"), seed=0)
    done = data("check", "images", "--into", "found.csv", "--tiny", "4")
    assert done.exit_code == 0, done.output
    assert "duplicate" in done.stdout
    (tmp_path / "images" / "damaged.png").write_bytes(b"damaged")
    assert data("check", "images", "--into", "found.csv", "--tiny", "4").exit_code == 1
    lines = (tmp_path / "found.csv").read_text().splitlines()
    assert len(lines) == 3
    assert any(line.startswith("train,images/damaged.png,unreadable") for line in lines)
    assert len(list((tmp_path / "images").iterdir())) == 7, "nothing is deleted"


def test_check_names_a_damaged_shard(tmp_path: Path) -> None:
    write_folder(Path("images"), 5)
    data("pack", "images", "shards")
    path = tmp_path / "shards" / "train-000000.tar"
    path.write_bytes(path.read_bytes()[:-100])
    done = data("check", "shards")
    assert done.exit_code == 1
    assert "damaged shard" in done.stdout


def test_stats_prints_what_to_paste() -> None:
    write_folder(Path("images"), 6, 20, 30)
    done = data("stats", "images", "--images", "4")
    assert done.exit_code == 0, done.output
    assert "images     4 of 6" in done.stdout
    pasted = done.stdout.splitlines()[-1].split()
    config = compose("pretrain", ["data=folder", *pasted]).data
    assert config.mean and config.std
    assert len(config.mean) == len(config.std) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pack", "nowhere", "shards"], "data.root=nowhere does not exist"),
        (["pack", "images", "shards", "--short-side", "0"], "--short-side 0 leaves no pixel"),
        (["pack", "images", "images"], "images is not empty: choose a new folder"),
        (
            ["pack", "images", "shards", "data=digits"],
            "SRC=images: data=digits reads no folder, so give - in its place",
        ),
        (["pack", "images", "shards", "data=zip"], "data=zip does not exist"),
        (
            ["pack", "http://host/{0..9}.tar", "shards", "data=webdataset"],
            "is a stream, and mae data reads images at random",
        ),
        (["stats", "images", "data.rot=1"], "data.rot is not an option here"),
        (["check", "empty"], "empty holds no image"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(tmp_path: Path, arguments: list[str], message: str) -> None:
    write_folder(Path("images"), 3)
    Path("empty").mkdir()
    done = data(*arguments)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"images", "empty"}
