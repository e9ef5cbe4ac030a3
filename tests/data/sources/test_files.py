"""Folders of images, as people keep them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing

from mae.data.source import Subset
from mae.data.sources.file_index import scan
from mae.data.sources.files import FileSource, folder, image_folder
from tests.data.drawing import smooth, write_folder, write_image
from tests.runs import job


@pytest.mark.parametrize(
    "name", ["it's.png", "two words.png", "naïve 画像.png", "a=b, [c] {d}.png", "-dash.png", "per%20cent#.png"]
)
def test_odd_names_are_found_and_read(tmp_path: Path, name: str) -> None:
    write_image(tmp_path / "odd's dir" / name, 12, 10)
    splits = folder(str(write_image(tmp_path / "other.png").parent))
    names = {Path(split.name(0)).name for split in (splits.train, splits.val)}
    assert names == {name, "other.png"}
    assert FileSource(tmp_path, [f"odd's dir/{name}"]).image(0).shape == (3, 12, 10)


def test_names_that_are_no_utf8_are_found_and_read(tmp_path: Path) -> None:
    plain = write_image(tmp_path / "plain.png", 9, 7)
    odd = os.fsencode(tmp_path) + b"/\xff\xfe.png"
    try:
        plain.rename(os.fsdecode(odd))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (name,) = scan(tmp_path).names
    source = FileSource(tmp_path, [name])
    assert source.image(0).shape == (3, 9, 7)
    assert source.size(0) == (9, 7)


def test_a_folder_gives_unlabelled_splits_that_share_no_image(tmp_path: Path) -> None:
    splits = folder(str(write_folder(tmp_path, 30)))
    names = [[split.name(i) for i in range(len(split))] for split in (splits.train, splits.val)]
    assert splits.train.labels is None
    assert splits.val.labels is None
    assert splits.test is None
    assert len(names[1]) == 3
    assert sorted(names[0] + names[1]) == [str(tmp_path / f"image_{i:03}.png") for i in range(30)]


def make_classes(root: Path, counts: dict[str, int]) -> None:
    for name, count in counts.items():
        for number in range(count):
            write_image(root / name / f"{number}.png", seed=number)


def test_labels_are_the_class_folders_and_the_data_keep_their_own_splits(tmp_path: Path) -> None:
    make_classes(tmp_path / "train", {"cat": 3, "ant": 2})
    make_classes(tmp_path / "val", {"cat": 1, "ant": 1})
    make_classes(tmp_path / "test", {"ant": 2})
    splits = image_folder(str(tmp_path))
    assert splits.train.classes == ("ant", "cat")
    assert splits.train.labels.tolist() == [0, 0, 1, 1, 1]
    assert splits.val.labels.tolist() == [0, 1]
    # A split that lacks a class keeps the numbers of training.
    assert splits.test.labels.tolist() == [0, 0]
    for split in (splits.train, splits.val, splits.test):
        for index, label in enumerate(split.labels):
            assert Path(split.name(index)).parent.name == split.classes[label]


def test_without_a_validation_folder_some_training_images_are_held_out(tmp_path: Path) -> None:
    make_classes(tmp_path / "train", {"a": 10, "b": 10})
    make_classes(tmp_path / "test", {"a": 1})
    splits = image_folder(str(tmp_path))
    assert (len(splits.train), len(splits.val), len(splits.test)) == (18, 2, 1)
    # One of each class: the tenth is stratified.
    assert splits.val.labels.tolist() == [0, 1]


def test_classes_may_stand_in_the_root_itself(tmp_path: Path) -> None:
    make_classes(tmp_path, {"a": 6, "b": 6})
    splits = image_folder(str(tmp_path))
    assert splits.train.classes == ("a", "b")
    assert len(splits.train) + len(splits.val) == 12


def test_images_beside_the_class_folders_have_no_label_and_are_left_out(tmp_path: Path) -> None:
    make_classes(tmp_path / "train", {"a": 5, "b": 5})
    write_image(tmp_path / "train" / "stray.png")
    splits = image_folder(str(tmp_path))
    assert len(splits.train) + len(splits.val) == 10


def test_a_class_that_training_lacks_is_named(tmp_path: Path) -> None:
    make_classes(tmp_path / "train", {"a": 2, "b": 2})
    make_classes(tmp_path / "test", {"zebra": 1})
    with pytest.raises(ValueError, match="'zebra'"):
        image_folder(str(tmp_path))


def test_a_flat_folder_is_pointed_to_data_folder(tmp_path: Path) -> None:
    write_folder(tmp_path, 2)
    with pytest.raises(ValueError, match=r"no class folders.*data=folder"):
        image_folder(str(tmp_path))


def test_pixels_are_those_of_the_file(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", 6, 5, seed=4)
    source = FileSource(tmp_path, ["a.png"], np.array([0]), ("only",))
    assert torch.equal(source.image(0), torch.from_numpy(smooth(6, 5, 3, 4)).permute(2, 0, 1))


@pytest.mark.slow
def test_a_resumed_run_sees_the_list_that_it_began_with(tmp_path: Path) -> None:
    root, run = write_folder(tmp_path / "data", 40), tmp_path / "run"
    bare = ("callbacks.rank=false", "callbacks.pictures=0")
    overrides = ("data=folder", f"data.root={root}", "batch_size=8", "data.num_workers=0", *bare)
    job("pretrain", run, *overrides).run()
    write_image(root / "aaa new.png")
    (root / "image_007.png").unlink()
    resumed = job("pretrain", run, *overrides, "resume=true")
    source = resumed.data.splits.train
    assert isinstance(source, Subset)
    assert isinstance(source.source, FileSource)
    assert list(source.source.names) == [f"image_{number:03}.png" for number in range(40)]


def test_nothing_is_written_before_the_run_begins(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", 40)
    job("pretrain", tmp_path / "run", "data=folder", f"data.root={root}", f"data.index={tmp_path / 'shared'}")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_list_names_files_relative_to_itself_or_absolute(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", 6)
    listed = [f"data/image_{number:03}.png" for number in range(3)] + [str(root / f"image_{n:03}.png") for n in (3, 4)]
    (tmp_path / "list.txt").write_text("\n".join(listed) + "\n\n")
    whole = folder(str(tmp_path / "list.txt")).whole
    assert whole is not None
    assert len(whole) == 5
    assert [Path(whole.name(i)).name for i in range(5)] == [f"image_{number:03}.png" for number in range(5)]
    assert all(whole.size(i) == (20, 20) for i in range(5))


@pytest.mark.parametrize(
    ("content", "message"), [("", "lists no image"), ("gone.png\n", "begins with 'gone.png', and there is no file")]
)
def test_a_list_of_nothing_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "list.txt").write_text(content)
    with pytest.raises(ValueError, match=message):
        folder(str(tmp_path / "list.txt"))


def test_a_pattern_finds_what_the_shell_would(tmp_path: Path) -> None:
    for name in ("a/left/1.png", "b/left/2.png", "b/right/3.png", "b/left/deep/4.png"):
        write_image(tmp_path / name)
    (tmp_path / "a" / "left" / "notes.txt").write_text("x")
    whole = folder(str(tmp_path / "*" / "left" / "*")).whole
    assert whole is not None
    assert [Path(whole.name(i)).name for i in range(len(whole))] == ["1.png", "2.png"]
    deep = folder(str(tmp_path / "b" / "**" / "*.png")).whole
    assert deep is not None
    assert len(deep) == 3
    with pytest.raises(ValueError, match=r"\*\.jpg matches no image"):
        folder(str(tmp_path / "*.jpg"))


@pytest.mark.parametrize("kind", ["folder", "pattern", "list"])
def test_a_resumed_run_sees_the_images_that_it_began_with(tmp_path: Path, kind: str) -> None:
    root, run = write_folder(tmp_path / "data", 5), tmp_path / "run"
    (tmp_path / "list.txt").write_text("".join(f"data/image_{number:03}.png\n" for number in range(5)))
    given = {"folder": str(root), "pattern": str(root / "*.png"), "list": str(tmp_path / "list.txt")}[kind]
    first = folder(given, run_dir=run)
    assert first.keep is not None
    first.keep()
    write_image(root / "more.png")
    (tmp_path / "list.txt").write_text("data/more.png\n")
    again = folder(given, run_dir=run).whole
    assert again is not None
    assert [Path(again.name(i)).name for i in range(len(again))] == [f"image_{number:03}.png" for number in range(5)]


def test_an_image_is_no_list(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"one\.png is an image: give the folder that holds it"):
        folder(str(write_image(tmp_path / "one.png")))


def test_a_folder_whose_name_looks_like_a_pattern_is_a_folder(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "photos [2024]", 4)
    assert folder(str(root)).whole is not None
