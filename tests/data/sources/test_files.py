"""Folders of images, as people keep them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from mae.data.sources.file_index import scan
from mae.data.sources.files import FileSource, folder, image_folder
from tests.data.drawing import smooth, write_folder, write_image


def test_images_are_found_at_any_depth_in_sorted_order(tmp_path: Path) -> None:
    names = ["b.png", "a/z.png", "a/deep/er/x.png", "c/1.png"]
    for name in names:
        write_image(tmp_path / name)
    assert list(scan(tmp_path).names) == sorted(names)


def test_suffixes_count_in_any_case_and_other_files_do_not(tmp_path: Path) -> None:
    for name in ("a.JPG", "b.Jpeg", "c.pNg", "d.TIF"):
        write_image(tmp_path / name)
    for name in ("notes.txt", "jpg", "e.png.bak", "f.npy"):
        (tmp_path / name).write_bytes(b"no image")
    assert list(scan(tmp_path).names) == ["a.JPG", "b.Jpeg", "c.pNg", "d.TIF"]


def test_names_that_start_with_a_dot_are_passed_over(tmp_path: Path) -> None:
    # Thumbnails of file managers and macOS' resource forks (._x.jpg) are no images of the data set.
    write_image(tmp_path / "kept.png")
    write_image(tmp_path / ".hidden.png")
    write_image(tmp_path / ".thumbnails" / "t.png")
    (tmp_path / "._kept.png").write_bytes(b"resource fork")
    assert list(scan(tmp_path).names) == ["kept.png"]


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


def test_a_link_to_a_folder_above_does_not_repeat_images(tmp_path: Path) -> None:
    write_image(tmp_path / "a" / "one.png")
    (tmp_path / "a" / "back").symlink_to(tmp_path)
    assert list(scan(tmp_path).names) == ["a/one.png"]


def test_linked_files_and_folders_are_followed_and_dead_links_passed_over(tmp_path: Path) -> None:
    elsewhere = write_folder(tmp_path / "elsewhere", 2)
    root = tmp_path / "root"
    root.mkdir()
    (root / "linked").symlink_to(elsewhere)
    (root / "file.png").symlink_to(elsewhere / "image_000.png")
    (root / "dead.png").symlink_to(tmp_path / "nowhere.png")
    assert list(scan(root).names) == ["file.png", "linked/image_000.png", "linked/image_001.png"]


def test_an_empty_folder_and_one_without_images_say_what_they_hold(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no image: it is empty"):
        scan(tmp_path)
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "b.txt").write_text("x")
    (tmp_path / "README").write_text("x")
    with pytest.raises(ValueError, match=r"holds no image: only 2 \.txt, 1 no suffix.*\.png"):
        scan(tmp_path)


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
