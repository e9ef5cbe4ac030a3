"""Files of arrays: where the axes are, what the numbers become, and what is no image."""

from __future__ import annotations

import pickle
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mae.data.reading.decode import UnreadableImageError
from mae.data.sources import array_files as stacks
from mae.data.sources.array_files import array_axes
from mae.data.sources.arrays import arrays
from tests.data.sources.array_drawing import drawn, everything, only, rng, saved

tifffile = pytest.importorskip("tifffile")


@pytest.mark.parametrize(
    ("shape", "layout", "order"),
    [
        ((5, 12, 16), None, (0, None, 1, 2)),
        ((5, 8, 8, 41), None, (0, 3, 1, 2)),
        ((5, 16, 12, 14), "NCHW", (0, 1, 2, 3)),
        ((5, 8, 8, 8), "NHWC", (0, 3, 1, 2)),
    ],
)
def test_one_file_holds_images_in_any_layout(
    tmp_path: Path, shape: tuple[int, ...], layout: str | None, order: tuple[int | None, ...]
) -> None:
    array = drawn(*shape)
    expected = array[:, None] if None in order else array.transpose([axis for axis in order if axis is not None])
    splits = arrays(saved(tmp_path / "a.npy", array), layout)
    assert np.array_equal(only(splits).numpy(), expected)
    assert splits.train.labels is None
    assert splits.train.classes == ()
    assert splits.test is None
    assert (len(splits.train), len(splits.val)) == (4, 1)
    assert splits.train.size(0) == expected.shape[2:]


SIDE = st.integers(1, 40)


@given(st.integers(1, 9), SIDE, SIDE, SIDE)
def test_channels_are_told_by_the_shape_or_asked_for(count: int, height: int, width: int, channels: int) -> None:
    # Channels are fewer than rows and columns, or the sides are equal and the channels another number.
    told = channels < min(height, width) and height != width
    told |= height == width != channels
    for letters, shape in (("NCHW", (channels, height, width)), ("NHWC", (height, width, channels))):
        if told:
            assert array_axes((count, *shape), None, Path("a.npy")) == letters
            assert array_axes(shape, None, Path("a.npy"), single=True) == letters[1:]
        elif len({height, width, channels}) == 1:
            with pytest.raises(UnreadableImageError, match=r"data\.layout=NHWC or data\.layout=NCHW"):
                array_axes((count, *shape), None, Path("a.npy"))
        assert array_axes((count, *shape), letters, Path("a.npy")) == letters


def test_channels_that_the_shape_does_not_tell_are_asked_for(tmp_path: Path) -> None:
    for shape in ((5, 8, 8, 8), (5, 8, 12, 8), (5, 16, 4, 16), (5, 12, 10, 14)):
        with pytest.raises(ValueError, match=r"shape \(5, .*data\.layout=NHWC or data\.layout=NCHW"):
            arrays(saved(tmp_path / "a.npy", drawn(*shape)))


def test_a_layout_of_other_axes_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npy", drawn(5, 8, 8))
    with pytest.raises(ValueError, match=r"shape \(5, 8, 8\), and data\.layout=NHWC is of 4 axes"):
        arrays(path, "NHWC")
    with pytest.raises(ValueError, match=r"data\.layout=HWN is unknown: choose one of NHW, NHWC, NCHW"):
        arrays(path, "HWN")
    with pytest.raises(ValueError, match=r"a file of images is \(N, H, W\)"):
        arrays(saved(tmp_path / "b.npy", drawn(8, 8)))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([0, 7, 255], np.uint8), torch.tensor([0, 7, 255], dtype=torch.uint8)),
        (np.array([False, True, True]), torch.tensor([0, 255, 255], dtype=torch.uint8)),
        (np.array([0, 13107, 65535], np.uint16), torch.tensor([0.0, 0.2, 1.0])),
        (np.array([0, 13107, 65535], ">u2"), torch.tensor([0.0, 0.2, 1.0])),
        (np.array([-32768, 0, 300], np.int16), torch.tensor([-32768.0, 0, 300])),
        (np.array([-5, 0, 70000], np.int32), torch.tensor([-5.0, 0, 70000])),
        (np.array([0, 1, 2**31], np.uint32), torch.tensor([0.0, 1, 2**31])),
        (np.array([-1.5, 0, 2.25], np.float16), torch.tensor([-1.5, 0, 2.25])),
        (np.array([-1.5, 0, 1e6], ">f4"), torch.tensor([-1.5, 0, 1e6])),
        (np.array([-1.5, 0, 1e6], np.float64), torch.tensor([-1.5, 0, 1e6])),
    ],
    ids=lambda value: getattr(value, "dtype", value),
)
def test_numbers_become_bytes_or_floats_that_mean_the_same(
    tmp_path: Path, values: np.ndarray, expected: Tensor
) -> None:
    images = np.broadcast_to(values, (4, 5, 3))
    np.savez(tmp_path / "a.npz", images)
    for path in (saved(tmp_path / "a.npy", images), str(tmp_path / "a.npz")):
        for image in everything(arrays(path)):
            assert image.dtype == expected.dtype
            assert torch.equal(image, expected.expand(1, 5, 3))


@pytest.mark.parametrize("dtype", [np.complex64, "U3", "M8[s]", object])
def test_what_is_no_number_is_refused_before_work_starts(tmp_path: Path, dtype: Any) -> None:
    array = np.zeros((4, 8, 8), dtype)
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    np.savez(tmp_path / "b.npz", images=array)
    for name in ("a.npy", "b.npz"):
        with pytest.raises(ValueError, match=rf"{name} (holds|cannot be read)"):
            arrays(str(tmp_path / name))


@pytest.mark.parametrize("wrong", [np.nan, -np.inf, 1e300])
def test_values_that_are_no_numbers_are_missing_pixels_and_an_image_of_these_alone_is_refused(
    tmp_path: Path, wrong: float
) -> None:
    array = rng.random((4, 8, 8))
    array[2, 1, 1:3] = wrong
    array[1] = wrong
    source = arrays(saved(tmp_path / "a.npy", array)).whole
    assert source is not None
    picture = source.open(2)
    assert picture.missing is not None and picture.missing.nonzero().tolist() == [[1, 1], [1, 2]]
    there = np.delete(array[2].ravel(), [9, 10]).mean()
    assert picture.decode()[0, 1, 1:3].tolist() == pytest.approx([there, there], rel=1e-6)
    assert source.open(3).missing is None
    with pytest.raises(
        UnreadableImageError, match=r"a\.npy image 1 cannot be read as an image \(none of its pixels is there"
    ):
        source.open(1)


def test_a_worker_is_handed_the_place_of_an_array_and_not_its_content(tmp_path: Path) -> None:
    array = drawn(50, 40, 40)
    np.savez(tmp_path / "a.npz", images=array)
    tifffile.imwrite(tmp_path / "a.tif", array, compression="zlib")
    mapped, held, pages = (
        arrays(path).whole
        for path in (saved(tmp_path / "a.npy", array), *(str(tmp_path / f"a.{s}") for s in ("npz", "tif")))
    )
    for source in (mapped, pages):
        source.image(3)
        content = pickle.dumps(source)
        assert len(content) < 4000
        assert np.array_equal(pickle.loads(content).image(7)[0].numpy(), array[7])
    # As torch's loaders hand it to a worker: its memory is shared.
    assert len(ForkingPickler.dumps(held)) < 4000


def test_only_what_is_read_of_a_file_is_loaded(tmp_path: Path) -> None:
    # 64 GB that are not there: a sparse file.
    path = tmp_path / "large.npy"
    header = np.lib.format.open_memmap(tmp_path / "one.npy", "w+", np.uint8, (1, 512, 512, 4)).offset
    with path.open("wb") as file:
        described = {"descr": "|u1", "fortran_order": False, "shape": (1 << 16, 512, 512, 4)}
        np.lib.format.write_array_header_1_0(file, described)
        assert file.tell() == header
        file.truncate(header + (1 << 16) * 512 * 512 * 4)
    source = arrays(str(path)).whole
    assert source is not None
    assert len(source) == 1 << 16
    assert not source.image(len(source) - 1).any()
    assert not source.in_memory


def test_arrays_in_the_order_of_fortran_are_read_the_right_way_round(tmp_path: Path) -> None:
    array = drawn(4, 5, 6)
    splits = arrays(saved(tmp_path / "a.npy", np.asfortranarray(array)))
    again = pickle.loads(pickle.dumps(splits.whole))
    assert np.array_equal(only(splits)[:, 0].numpy(), array)
    assert np.array_equal(again.image(3)[0].numpy(), array[3])


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.array([0, 1, -1, 0]), r"has the label -1: number the classes from 0"),
        (np.array([0.0, 1, 1, 0]), r"are float64: give whole numbers"),
        (np.array(list("abca")), r"give whole numbers"),
        (np.array([0, 1, 1]), r"has 3 labels for 4 images"),
        (np.eye(4, dtype=int), r"the shape \(4, 4\): give one number an image"),
        (np.array([0, 1, 10**9, 0]), r"has the label 1000000000"),
        (np.array([None] * 4), r"train_labels\.npy cannot be read"),
    ],
)
def test_labels_that_are_none_are_refused(tmp_path: Path, labels: np.ndarray, said: str) -> None:
    saved(tmp_path / "train.npy", drawn(4, 8, 8))
    np.save(tmp_path / "train_labels.npy", labels, allow_pickle=True)
    with pytest.raises(ValueError, match=said):
        arrays(str(tmp_path))


def test_an_npz_of_other_names_is_refused_unless_there_is_one(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", first=drawn(3, 8, 8), second=drawn(3, 8, 8))
    with pytest.raises(ValueError, match="holds the arrays first, second: name one of them images, x or data"):
        arrays(str(tmp_path / "a.npz"))
    array = drawn(3, 8, 8)
    np.savez(tmp_path / "b.npz", array)
    assert np.array_equal(only(arrays(str(tmp_path / "b.npz")))[:, 0].numpy(), array)


def test_a_file_that_fits_in_memory_costs_no_reading_and_a_larger_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "a.npy", drawn(4, 8, 8))
    assert arrays(path).train.in_memory
    monkeypatch.setattr(stacks, "IN_MEMORY", 255)
    assert not arrays(path).train.in_memory
