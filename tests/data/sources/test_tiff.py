"""TIFFs: pages of any meaning."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mae.data.inspection import inspect_images
from mae.data.reading.decode import UnreadableImageError
from mae.data.sources.arrays import arrays
from mae.data.sources.tiff import tiff_axes
from tests.data.sources.array_drawing import drawn, only, rng, saved

tifffile = pytest.importorskip("tifffile")


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


@given(
    st.permutations("YX"), st.text("CSTZIQRP", max_size=4), st.sampled_from([None, "images", "channels"]), st.booleans()
)
def test_axes_of_a_tiff_keep_their_meaning(sides: list[str], others: str, pages: str | None, single: bool) -> None:
    names = others[:1] + sides[0] + others[1:] + sides[1]
    for name, letter in zip(names, tiff_axes(names, pages, Path("a.tif"), single=single), strict=True):
        if name in "YX":
            assert letter == {"Y": "H", "X": "W"}[name]
        elif name in "CS" or pages == "channels" or (single and pages is None and name in "IQ"):
            assert letter == "C"
        else:
            assert letter == "N"
    with pytest.raises(UnreadableImageError, match="which are not those of images: Y and X must be among them"):
        tiff_axes(others, pages, Path("a.tif"), single=single)


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
