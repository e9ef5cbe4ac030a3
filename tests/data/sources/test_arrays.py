"""Arrays as data: splits, labels, and folders of files of one image each."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from mae.data.inspection import inspect_images
from mae.data.open_splits import open_splits
from mae.data.reading.decode import UnreadableImageError
from mae.data.sources.arrays import arrays
from tests.data.sources.array_drawing import drawn, everything, pictures, saved


@pytest.mark.parametrize("content", [b"", b"garbage" * 9, None])
def test_a_damaged_file_is_one_clear_error(tmp_path: Path, content: bytes | None) -> None:
    whole = Path(saved(tmp_path / "whole.npy", drawn(4, 8, 8))).read_bytes()
    for name in ("a.npy", "a.npz", "a.tif"):
        (tmp_path / name).write_bytes(whole[:200] if content is None else content)
        with pytest.raises(ValueError, match=rf"{name} cannot be read \(") as raised:
            arrays(str(tmp_path / name))
        assert "\n" not in str(raised.value)


def test_a_file_without_images_and_a_file_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no image: its shape is \(0, 8, 8\)"):
        arrays(saved(tmp_path / "a.npy", drawn(0, 8, 8)))
    (tmp_path / "a.csv").write_text("1,2")
    with pytest.raises(ValueError, match=r"a\.csv is none of \.npy \.npz \.tif \.tiff"):
        arrays(str(tmp_path / "a.csv"))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        arrays(str(tmp_path / "none.npy"))
    with pytest.raises(ValueError, match=r"data\.root=PATH"):
        arrays(None)


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_a_folder_of_splits_keeps_them_with_their_labels(tmp_path: Path, suffix: str) -> None:
    content = {}
    for name, count in (("train", 9), ("val", 3), ("test", 4)):
        content[name] = drawn(count, 8, 8, 4), np.arange(count) % 3
        if suffix == "npy":
            saved(tmp_path / f"{name}.npy", content[name][0])
            saved(tmp_path / f"{name}_labels.npy", content[name][1][:, None])
        else:
            np.savez_compressed(tmp_path / f"{name}.npz", x=content[name][0], y=content[name][1])
    splits = open_splits("arrays", root=str(tmp_path))
    for name, source in (("train", splits.train), ("val", splits.val), ("test", splits.test)):
        assert source is not None and source.labels is not None
        assert np.array_equal(torch.stack(pictures(source)).permute(0, 2, 3, 1).numpy(), content[name][0])
        assert source.labels.tolist() == content[name][1].tolist()
        assert source.labels.dtype == np.int64
        assert source.classes == ("0", "1", "2")


def test_without_a_validation_split_one_is_held_out_that_sees_every_class(tmp_path: Path) -> None:
    saved(tmp_path / "train.npy", drawn(60, 8, 8))
    saved(tmp_path / "train_labels.npy", np.repeat([0, 1, 2], 20))
    splits = arrays(str(tmp_path))
    assert (len(splits.train), len(splits.val)) == (54, 6)
    assert np.bincount(splits.val.labels).tolist() == [2, 2, 2]
    # The file itself as data.root finds its labels too.
    assert arrays(str(tmp_path / "train.npy")).val.labels.tolist() == splits.val.labels.tolist()


def test_a_class_that_training_lacks_still_has_a_name(tmp_path: Path) -> None:
    for name, labels in (("train", [0, 1, 0]), ("val", [0, 4])):
        saved(tmp_path / f"{name}.npy", drawn(len(labels), 8, 8))
        saved(tmp_path / f"{name}_labels.npy", np.array(labels))
    assert arrays(str(tmp_path)).train.classes == ("0", "1", "2", "3", "4")


def test_splits_that_do_not_fit_each_other_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "train.npy", drawn(4, 8, 8))
    saved(tmp_path / "train_labels.npy", np.array([0, 1, 0, 1]))
    saved(tmp_path / "test.npy", drawn(3, 8, 8))
    with pytest.raises(ValueError, match=r"test\.npy has none: add .*test_labels\.npy"):
        arrays(str(tmp_path))
    saved(tmp_path / "test.npy", drawn(3, 8, 8, 5))
    with pytest.raises(ValueError, match=r"test\.npy holds images of 5 channels, and .*train\.npy of 1"):
        arrays(str(tmp_path))
    np.savez(tmp_path / "test.npz", images=drawn(3, 8, 8))
    with pytest.raises(ValueError, match=r"test\.npy and test\.npz are both there"):
        arrays(str(tmp_path))


def test_a_folder_is_searched_for_files_of_one_image_each(tmp_path: Path) -> None:
    images = [drawn(4, 9 + number, 8) for number in range(5)]
    for number, image in enumerate(images):
        saved(tmp_path / ("deep" if number % 2 else ".") / f"{number}.npy", image.transpose(1, 2, 0))
    saved(tmp_path / ".hidden" / "9.npy", drawn(9))
    (tmp_path / "notes.txt").write_text("")
    source = arrays(str(tmp_path)).whole
    assert source is not None
    names = [source.name(index) for index in range(5)]
    assert names == sorted(names)
    for index, name in enumerate(names):
        expected = images[int(Path(name).stem)]
        assert np.array_equal(source.image(index).numpy(), expected)
        assert source.size(index) == expected.shape[1:]
    assert np.array_equal(pickle.loads(pickle.dumps(source)).image(2).numpy(), images[int(Path(names[2]).stem)])


def test_a_file_whose_shape_tells_nothing_is_read_as_the_others_of_its_folder(tmp_path: Path) -> None:
    for number in range(4):
        saved(tmp_path / f"{number}.npy", drawn(9, 8, 4))
    square = drawn(4, 4, 4)  # which tells nothing by itself
    saved(tmp_path / "4.npy", square)
    source = arrays(str(tmp_path)).whole
    assert source is not None
    assert np.array_equal(source.image(4).numpy(), square.transpose(2, 0, 1))


def test_files_that_disagree_on_the_layout_are_asked_about(tmp_path: Path) -> None:
    saved(tmp_path / "0.npy", drawn(9, 8, 4))
    saved(tmp_path / "1.npy", drawn(4, 9, 8))
    with pytest.raises(ValueError, match=r"the shapes tell .*say data\.layout=NHWC or data\.layout=NCHW"):
        arrays(str(tmp_path))


def test_a_file_of_other_channels_is_unreadable_and_grey_stands_beside_colour(tmp_path: Path) -> None:
    for number in range(5):
        saved(tmp_path / "four" / f"{number}.npy", drawn(9, 8, 5 if number == 2 else 4))
        saved(tmp_path / "colour" / f"{number}.npy", drawn(9, 8) if number == 2 else drawn(9, 8, 3))
    source = arrays(str(tmp_path / "four")).whole
    assert source is not None
    with pytest.raises(UnreadableImageError, match=r"2\.npy holds 5 channels, where the others hold 4"):
        source.open(2)
    assert [image.shape[0] for image in everything(arrays(str(tmp_path / "colour")))] == [3, 3, 1, 3, 3]


def test_a_damaged_file_of_a_folder_is_named_when_it_is_met(tmp_path: Path) -> None:
    for number in range(4):
        saved(tmp_path / f"{number}.npy", drawn(9, 8))
    (tmp_path / "1.npy").write_bytes(b"garbage")
    source = arrays(str(tmp_path)).whole
    assert source is not None
    with pytest.raises(UnreadableImageError, match=r"1\.npy cannot be read"):
        source.open(1)
    assert inspect_images(source).count == 4


def test_a_folder_without_arrays_says_what_is_in_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no array: it is empty"):
        arrays(str(tmp_path))
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"only 1 \.png"):
        arrays(str(tmp_path))
    saved(tmp_path / "b.npy", drawn(9, 12, 8, 4))
    with pytest.raises(ValueError, match=r"for a file of many give it as data\.root, not its folder"):
        arrays(str(tmp_path))
