"""Arrays as images: where the axes are, what the numbers become, and what is no image."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mae.data.inspection import inspect_images
from mae.data.open_splits import open_splits
from mae.data.reading.decode import UnreadableImageError
from mae.data.source import Source
from mae.data.sources import array_files as stacks
from mae.data.sources.arrays import arrays
from mae.data.splits import Splits

tifffile = pytest.importorskip("tifffile")
rng = np.random.default_rng(0)


def drawn(*shape: int, dtype: Any = np.uint8) -> np.ndarray:
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype)


def saved(path: Path, array: np.ndarray) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)
    return str(path)


def everything(splits: Splits) -> list[Tensor]:
    """All images of a source without splits of its own, in the order of the file."""
    assert splits.whole is not None
    return pictures(splits.whole)


def pictures(source: Source) -> list[Tensor]:
    return [source.image(index) for index in range(len(source))]


def only(splits: Splits) -> Tensor:
    return torch.stack(everything(splits))


@pytest.mark.parametrize(
    ("shape", "layout", "order"),
    [
        ((5, 12, 16), None, (0, None, 1, 2)),
        ((5, 12, 16, 4), None, (0, 3, 1, 2)),
        ((5, 4, 12, 16), None, (0, 1, 2, 3)),
        ((5, 8, 8, 41), None, (0, 3, 1, 2)),
        ((5, 41, 8, 8), None, (0, 1, 2, 3)),
        ((5, 12, 10, 14), "NHWC", (0, 3, 1, 2)),
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


@pytest.mark.parametrize("shape", [(5, 8, 8, 8), (5, 8, 12, 8), (5, 16, 4, 16), (5, 12, 10, 14)])
def test_channels_that_the_shape_does_not_tell_are_asked_for(tmp_path: Path, shape: tuple[int, ...]) -> None:
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
def test_an_image_with_a_value_that_is_no_number_is_named_and_the_others_are_read(tmp_path: Path, wrong: float) -> None:
    array = rng.random((4, 8, 8))
    array[2, 1, 1:3] = wrong
    source = arrays(saved(tmp_path / "a.npy", array)).whole
    assert source is not None
    with pytest.raises(UnreadableImageError, match=r"a\.npy image 2 holds 2 of 64 values that are NaN or infinite"):
        source.open(2)
    assert source.open(3).size == (8, 8)


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


def test_an_npz_of_other_names_is_refused_unless_there_is_one(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", first=drawn(3, 8, 8), second=drawn(3, 8, 8))
    with pytest.raises(ValueError, match="holds the arrays first, second: name one of them images, x or data"):
        arrays(str(tmp_path / "a.npz"))
    array = drawn(3, 8, 8)
    np.savez(tmp_path / "b.npz", array)
    assert np.array_equal(only(arrays(str(tmp_path / "b.npz")))[:, 0].numpy(), array)


Write = Callable[..., None]


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize(
    ("shape", "options", "order"),
    [
        ((5, 9, 11), {}, "nyx"),
        ((5, 9, 11), {"metadata": None}, "nyx"),
        ((5, 9, 11, 3), {"photometric": "rgb"}, "nyxc"),
        ((2, 5, 9, 11), {"imagej": True, "metadata": {"axes": "TCYX"}}, "ncyx"),
        ((4, 2, 9, 11), {"ome": True, "metadata": {"axes": "CZYX"}}, "cnyx"),
        ((2, 3, 2, 9, 11), {"ome": True, "metadata": {"axes": "TZCYX"}}, "nncyx"),
        ((2, 4, 9, 11), {"photometric": "minisblack", "planarconfig": "separate"}, "ncyx"),
    ],
)
def test_pages_of_a_tiff_are_images_but_for_those_named_channels(
    tmp_path: Path, shape: tuple[int, ...], options: dict[str, Any], order: str, compression: str | None
) -> None:
    array = drawn(*shape, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", array, compression=compression, **options)
    letters = [letter + str(order[:place].count(letter)) for place, letter in enumerate(order)]
    if "c" not in order:
        array, letters = array[..., None], [*letters, "c0"]
    images = np.einsum(array, list(range(len(letters))), [letters.index(name) for name in sorted(letters, key=_rank)])
    expected = images.reshape(-1, *images.shape[-3:]).astype(np.float32) / 65535
    splits = arrays(str(tmp_path / "a.tif"))
    assert np.array_equal(only(splits).numpy(), expected)
    assert np.array_equal(pickle.loads(pickle.dumps(splits.whole)).image(1).numpy(), expected[1])


def _rank(name: str) -> tuple[int, str]:
    return "ncyx".index(name[0]), name


def test_pages_can_be_said_to_be_channels_or_images(tmp_path: Path) -> None:
    array = drawn(6, 9, 11)
    for name in ("a.tif", "b.tif"):
        tifffile.imwrite(tmp_path / name, array)
    with pytest.raises(ValueError, match="1 image is too few"):
        arrays(str(tmp_path / "a.tif"), pages="channels")
    # In a folder a file is an image, and its unnamed pages are channels, unless images are asked for.
    channels, images = arrays(str(tmp_path)), arrays(str(tmp_path), pages="images")
    assert np.array_equal(only(channels).numpy(), np.stack([array, array]))
    assert np.array_equal(only(images).numpy(), np.concatenate([array, array])[:, None])
    assert images.whole is not None
    assert images.whole.name(7) == f"{tmp_path / 'b.tif'} image 1"
    with pytest.raises(ValueError, match=r"data\.pages=frames is unknown: choose images or channels"):
        arrays(str(tmp_path), pages="frames")


def test_named_pages_in_a_folder_are_asked_about(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", drawn(6, 9, 11), imagej=True, metadata={"axes": "TYX"})
    tifffile.imwrite(tmp_path / "b.tif", drawn(6, 9, 11), imagej=True, metadata={"axes": "TYX"})
    with pytest.raises(ValueError, match=r"a\.tif|b\.tif holds 6 images: data\.pages=images takes all of them"):
        inspect_images(arrays(str(tmp_path)).train)


def test_a_tiff_in_tiles_of_a_machine_of_the_other_endianness(tmp_path: Path) -> None:
    array = rng.random((5, 40, 50)).astype(np.float32)
    tifffile.imwrite(tmp_path / "a.tif", array, tile=(16, 16), byteorder=">")
    tifffile.imwrite(tmp_path / "b.tif", array, byteorder=">")
    for name in ("a.tif", "b.tif"):
        assert np.array_equal(only(arrays(str(tmp_path / name)))[:, 0].numpy(), array)


def test_a_missing_tifffile_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "a.tif", drawn(6, 9, 11))
    monkeypatch.setitem(sys.modules, "tifffile", None)
    for root in (tmp_path / "a.tif", tmp_path):
        with pytest.raises(ImportError, match=r"pip install -e '.\[tiff\]'"):
            arrays(str(root))
    saved(tmp_path / "npy" / "train.npy", drawn(4, 8, 8))
    assert len(arrays(str(tmp_path / "npy")).train) == 3


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


def test_a_file_that_fits_in_memory_costs_no_reading_and_a_larger_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "a.npy", drawn(4, 8, 8))
    assert arrays(path).train.in_memory
    monkeypatch.setattr(stacks, "IN_MEMORY", 255)
    assert not arrays(path).train.in_memory
