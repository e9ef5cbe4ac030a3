"""Folders of images with masks: which are pairs, and what the commands say of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from mae.cli.app import app
from mae.data.segmentation.mask_folders import LAYOUTS, segmentation_folder
from mae.data.source import Subset
from tests.data.drawing import write_folder
from tests.data.masked import (
    board,
    checked,
    opened,
    put,
    write_camvid,
    write_pair,
)
from tests.runs import DECODER, ENCODER, job


@pytest.mark.parametrize("names", [("train", "val", "test"), ("training", "validation", "testing")])
@pytest.mark.parametrize("layout", LAYOUTS[:4])
def test_layouts_are_found(tmp_path: Path, layout: tuple[str, str], names: tuple[str, ...]) -> None:
    for count, split in enumerate(names, 2):
        for number in range(count):
            image, mask = (tmp_path / template.replace("{split}", split) for template in layout)
            # ADE20K's images are JPEGs; folders within the folders are looked into.
            write_pair(image / f"town/{number}.JPG", mask / f"town/{number}.png", board(2 + number))
    splits = opened(tmp_path)
    assert {name: len(source) for name, source in splits.own.items()} == {"train": 2, "val": 3, "test": 4}
    for source in splits.own.values():
        for index in range(len(source)):
            assert source.name(index).endswith(f"town/{index}.JPG")
            assert torch.equal(source.mask(index), torch.from_numpy(board(2 + index)))


def test_folders_without_splits_are_for_training_and_some_are_held_out(tmp_path: Path) -> None:
    for number in range(20):
        write_pair(tmp_path / f"images/{number}.png", tmp_path / f"masks/{number}.png", board(2 + number % 3))
    splits, look = checked(tmp_path)
    assert (len(splits.train), len(splits.val), look.count) == (18, 2, 20)
    assert splits.train.mask_classes == splits.val.mask_classes == ("0", "1", "2", "3")
    assert isinstance(splits.val, Subset)
    for source in (splits.train, splits.val):
        for index in range(len(source)):
            number = int(Path(source.name(index)).stem)
            assert torch.equal(source.mask(index), torch.from_numpy(board(2 + number % 3)))


@pytest.mark.parametrize(("images_at", "masks_at", "val"), [("{split}/rgb", "ids/{split}", 3), ("rgb", "ids/all", 1)])
def test_folders_can_be_given(tmp_path: Path, images_at: str, masks_at: str, val: int) -> None:
    for split, count in (("train", 4), ("val", 3)):
        for number in range(count):
            image, mask = (tmp_path / template.replace("{split}", split) for template in (images_at, masks_at))
            write_pair(image / f"{number}.png", mask / f"{number}.png", board(2))
    assert len(opened(tmp_path, images_at=images_at, masks_at=masks_at).val) == val


def test_test_images_without_masks_are_left_out(tmp_path: Path) -> None:
    write_folder(write_camvid(tmp_path) / "test", 2)
    assert opened(tmp_path).test is None


def test_a_run_keeps_the_pairs_that_it_began_with(tmp_path: Path) -> None:
    root, run = write_camvid(tmp_path / "data"), tmp_path / "run"
    splits = segmentation_folder(str(root), run_dir=run)
    assert splits.keep is not None
    splits.keep()
    write_pair(root / "train/zzz.png", root / "trainannot/zzz.png", board(2))
    assert len(segmentation_folder(str(root), run_dir=run).train) == 6
    assert len(segmentation_folder(str(root)).train) == 7


def remove(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        for file in [*path.iterdir()] if path.is_dir() else []:
            file.unlink()
        path.rmdir() if path.is_dir() else path.unlink()


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        (["trainannot/001.png"], r"train/001\.png has no mask: .*trainannot wants a PNG of the same name; data=folder"),
        (["trainannot/001.png", "trainannot/004.png"], r"train/001\.png has no mask, and so it is with 1 more"),
        (["val/000.png", "val/002.png"], r"valannot/000\.png has no image, and so it is with 1 more: .*val wants one"),
        (["valannot"], r"/val is there, and .*/valannot is not: add it, or remove it"),
        (["val"], r"/valannot is there, and .*/val is not: add it, or remove it"),
        (
            ["train"],
            r"holds no images with masks: none of train \+ trainannot, images/train \+ annotations/train.*images_at",
        ),
    ],
)
def test_what_lacks_its_other_half_is_named(tmp_path: Path, gone: list[str], message: str) -> None:
    remove(write_camvid(tmp_path), *gone)
    with pytest.raises(ValueError, match=message) as raised:
        opened(tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images_at": "train"}, r"data\.images_at=train and data\.masks_at=None: give both, or neither"),
        ({"images_at": "{split}", "masks_at": "trainannot"}, r"do not fit: give two folders, and \{split\} in both"),
        ({"images_at": "{split}", "masks_at": "{split}"}, r"do not fit: give two folders"),
        ({"images_at": "a/{split}", "masks_at": "b/{split}"}, r"a/train does not exist: training wants images and"),
        ({"classes": 1}, r"data\.classes=1 is neither a number from 2 to 255 nor a list"),
        ({"classes": 256}, r"data\.classes=256 is neither a number from 2 to 255"),
        ({"classes": ["road"]}, r"data\.classes=\['road'\] \(1 names\) is neither"),
        ({"classes": "road"}, r"data\.classes=road is neither"),
        ({"classes": True}, r"data\.classes=True is neither"),
        ({"classes": ["road", "tree", "road"]}, r"data\.classes names 'road' twice"),
        ({"ignore": "void"}, r"data\.ignore=void is no id: masks hold whole numbers from 0 to 65,535"),
        ({"ignore": [255, -1]}, r"data\.ignore=-1 is no id"),
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        opened(write_camvid(tmp_path), **options)


def data(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["data", *arguments, "data=segmentation_folder", "--workers", "0"])


def test_check_names_masks(tmp_path: Path) -> None:
    root = write_camvid(tmp_path / "data")
    assert data("check", str(root), "--tiny", "8").exit_code == 0
    put(root, "valannot/001.png", board(3, 10, 10))
    put(root, "trainannot/002.png", board(5))
    found = tmp_path / "found.csv"
    assert data("check", str(root), "data.classes=3", "--tiny", "8", "--into", str(found)).exit_code == 1
    lines = found.read_text().splitlines()[1:]
    assert [line.split(",")[:3] for line in lines] == [
        ["train", f"{root}/train/002.png", "mask"],
        ["val", f"{root}/val/001.png", "mask"],
    ]
    assert "holds the id 4" in lines[0]
    assert "its mask 10 x 10" in lines[1]


def test_stats_shows_the_shares_of_the_classes(tmp_path: Path) -> None:
    root = write_camvid(tmp_path / "data", classes=4)
    done = data("stats", str(root), "data.ignore=3", "data.classes=[sky,road,tree,bus]")
    assert done.exit_code == 0, done.output
    assert "classes    4 in masks, 25.0% of whose pixels have no label" in done.stdout
    assert [line.split()[::2] for line in done.stdout.splitlines()[2:5]] == [
        ["sky", "33.33%"],
        ["road", "33.33%"],
        ["tree", "33.33%"],
    ]
    assert data("stats", str(root)).stdout.splitlines()[5].split()[::2] == ["3", "25.00%"]


def test_pretraining_takes_the_images(tmp_path: Path) -> None:
    root = write_camvid(tmp_path / "data", train=10)
    options = ["data=segmentation_folder", f"data.root={root}", "data.image_size=16", "model.patch_size=4"]
    results = job("pretrain", tmp_path / "run", *options, *ENCODER, *DECODER, "data.num_workers=0", "epochs=1").run()
    assert "val_loss" in results
    assert "knn_top1" not in results
