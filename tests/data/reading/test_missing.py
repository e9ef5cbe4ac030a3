"""Pixels that are not there: what the file says of them, and that nothing of what stands in their place counts."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, TiffImagePlugin

from mae.data.datamodule import ImageData
from mae.data.inspection import inspect_images
from mae.data.loading.batches import ImageDataset, collate
from mae.data.open_splits import open_splits
from mae.data.reading.decode import EncodedPicture, Picture, TensorPicture, UnreadableImageError
from mae.data.reading.transforms import EvalTransform, TrainTransform, Window, cut_missing
from mae.data.shards.shard_source import open_member
from mae.data.sources.array_files import to_picture
from mae.data.sources.files import FileSource
from mae.data.statistics import PixelSums, measure_pixels, standardize
from mae.data.tools.describe import measure_one
from mae.data.tools.encode import stored
from mae.data.tools.pack import PackOptions, encode_one

HOLE = (slice(2, 5), slice(1, 4))
"""Rows and columns of the pixels that are missing."""


def noise(channels: int, seed: int = 0) -> np.ndarray:
    """Return uint8 (8, 10, channels)."""
    return np.random.default_rng(seed).integers(0, 256, (8, 10, channels), dtype=np.uint8)


def hole() -> torch.Tensor:
    found = torch.zeros(8, 10, dtype=torch.bool)
    found[HOLE] = True
    return found


def encoded(image: Image.Image, kind: str, **options: Any) -> EncodedPicture:
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return EncodedPicture(file.getvalue(), f"a.{kind.lower()}")


def transparent(kind: str, junk: int = 0) -> EncodedPicture:
    """Return a picture in colour with a hole; what stands in the hole is ``junk``."""
    pixels = np.concatenate([noise(3), np.full((8, 10, 1), 255, np.uint8)], axis=2)
    pixels[HOLE] = (junk, junk, junk, 0)
    return encoded(
        Image.fromarray(pixels, "RGBA"), kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {})
    )


def grey_with_alpha() -> EncodedPicture:
    pixels = np.concatenate([noise(1), np.full((8, 10, 1), 255, np.uint8)], axis=2)
    pixels[HOLE] = 0
    return encoded(Image.fromarray(pixels, "LA"), "PNG")


def palette() -> EncodedPicture:
    numbers = noise(1)[..., 0] % 7 + 1
    numbers[HOLE] = 0
    image = Image.fromarray(numbers, "P")
    image.putpalette(np.random.default_rng(1).integers(0, 256, 768, dtype=np.uint8).tobytes())
    return encoded(image, "PNG", transparency=0)


def nodata(values: np.ndarray, text: str, mode: str | None = None) -> EncodedPicture:
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[42113] = text
    info.tagtype[42113] = 2
    return encoded(Image.fromarray(values, mode), "TIFF", tiffinfo=info)


def float_tiff(value: float, text: str | None) -> EncodedPicture:
    values = np.random.default_rng(2).random((8, 10)).astype(np.float32)
    values[HOLE] = value
    return encoded(Image.fromarray(values), "TIFF") if text is None else nodata(values, text)


def black_nodata() -> EncodedPicture:
    pixels = noise(3) | 1
    pixels[0, 0, 0] = 0  # one channel alone: dark, and there
    pixels[HOLE] = 0
    return nodata(pixels, "0")


PICTURES = {
    "png": lambda: transparent("PNG"),
    "webp": lambda: transparent("WEBP"),
    "tiff with alpha": lambda: transparent("TIFF"),
    "grey with alpha": grey_with_alpha,
    "palette": palette,
    "NaN": lambda: float_tiff(np.nan, None),
    "nodata": lambda: float_tiff(-9999.0, "-9999"),
    "the least float": lambda: float_tiff(-3.4028235e38, "-3.4028234663852886e+38"),
    "nodata of 8 bits": black_nodata,
}


@pytest.mark.parametrize("kind", PICTURES)
def test_what_a_file_says_of_its_pixels_is_known_and_its_holes_are_filled_with_the_mean_of_the_rest(kind: str) -> None:
    picture = PICTURES[kind]()
    image = picture.decode().double()
    assert picture.missing is not None
    assert torch.equal(picture.missing, hole())
    there = image[:, ~hole()].mean(dim=1)
    assert torch.allclose(image[:, 3, 2], there, atol=0.5 if picture.decode().dtype == torch.uint8 else 1e-6)
    assert torch.isfinite(image).all()


def test_a_picture_that_has_all_its_pixels_misses_none() -> None:
    opaque = np.concatenate([noise(3), np.full((8, 10, 1), 1, np.uint8)], axis=2)
    for picture in (encoded(Image.fromarray(noise(3)), "PNG"), encoded(Image.fromarray(opaque, "RGBA"), "PNG")):
        assert torch.equal(picture.decode(), torch.from_numpy(noise(3)).permute(2, 0, 1))
        assert picture.missing is None
    assert float_tiff(0.5, "NaN").missing is None


def test_a_picture_without_a_pixel_cannot_be_read() -> None:
    with pytest.raises(UnreadableImageError, match=r"a\.png cannot be read as an image \(none of its pixels is there"):
        encoded(Image.new("RGBA", (4, 4), (255, 0, 0, 0)), "PNG").decode()


def test_a_turned_picture_turns_its_hole() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.concatenate([noise(3), np.full((8, 10, 1), 255, np.uint8)], axis=2)
    pixels[HOLE] = 0
    picture = encoded(Image.fromarray(pixels, "RGBA"), "PNG", exif=exif)
    picture.decode()
    assert picture.missing is not None and torch.equal(picture.missing, hole().rot90(-1))


def test_tiffs_of_many_bands_heed_their_nodata(tmp_path: Path) -> None:
    bands = np.random.default_rng(3).random((2, 8, 10, 4)).astype(np.float32)
    bands[0][HOLE] = -9999
    bands[1, 0, 0, 2] = -9999
    for index, image in enumerate(bands):
        tag = (42113, 2, 0, "-9999", True)  # of GDAL
        tifffile.imwrite(
            tmp_path / f"{index}.tif", image, photometric="minisblack", planarconfig="contig", extratags=[tag]
        )
    source = open_splits("arrays", root=str(tmp_path)).whole
    assert source is not None
    first, second = source.open(0), source.open(1)
    assert first.missing is not None and torch.equal(first.missing, hole())
    assert second.missing is not None and second.missing.nonzero().tolist() == [[0, 0]]
    assert first.decode().min() >= 0
    assert inspect_images(source).missing == pytest.approx((9 + 1) / 160)


def files(folder: Path, junk: int) -> FileSource:
    for index in range(3):
        (folder / f"{index}.png").write_bytes(
            transparent("PNG", junk).data if index else encoded(Image.fromarray(noise(3)), "PNG").data
        )
    return FileSource(folder, ["0.png", "1.png", "2.png"])


@pytest.mark.parametrize("transform", [TrainTransform((8, 8), 0.3), EvalTransform((8, 8))])
def test_a_map_of_what_is_there_travels_with_crops_and_flips(transform: Any, tmp_path: Path) -> None:
    # The hole is black in the file and the rest nearly so at no place: what is filled is where the map says.
    source = files(tmp_path, 0)
    dataset = ImageDataset(source, transform, 3, seed=3, repeats=2)
    for epoch in range(6):
        whole, lacking = dataset[epoch, 0], dataset[epoch, 1]
        assert whole.valid is None
        picture = source.open(1)
        picture.decode()
        assert picture.missing is not None
        for repeat, rng in enumerate(dataset.chance(epoch, 1)):
            window = transform.draw((8, 10), rng)
            expected = transform.finish(cut_missing(picture.missing, window, (8, 8)), rng)
            found = torch.ones(8, 8, dtype=torch.bool) if lacking.valid is None else lacking.valid[repeat]
            assert torch.equal(found, expected)
        batch = collate([whole, lacking])
        if lacking.valid is not None:
            assert batch.valid is not None and batch.valid[:2].all() and torch.equal(batch.valid[2:], lacking.valid)


def test_a_pixel_is_there_where_half_of_what_it_is_made_of_is() -> None:
    missing = torch.zeros(8, 8, dtype=torch.bool)
    missing[:, :3] = True
    assert cut_missing(missing, Window(0, 0, 8, 8), (4, 4)).tolist() == [[False, True, True, True]] * 4
    missing[:, 3] = True
    assert cut_missing(missing, Window(0, 0, 8, 8), (4, 4)).tolist() == [[False, False, True, True]] * 4


def test_what_stands_in_a_hole_reaches_no_batch_and_no_statistic(tmp_path: Path) -> None:
    batches = []
    for junk in (0, 77, 255):
        folder = tmp_path / str(junk)
        folder.mkdir()
        source = files(folder, junk)
        dataset = ImageDataset(source, TrainTransform((8, 8), 0.3), 3, seed=1)
        batch = collate([dataset[0, index] for index in range(3)])
        whole = open_splits("folder", root=str(folder))
        data = ImageData(
            whole,
            image_size=(8, 8),
            channels=3,
            effective_batch=2,
            micro_batch=2,
            min_scale=0.2,
            flip=False,
            num_workers=0,
            seed=0,
        )
        batches.append((batch, data.measure_pixels()))
    for batch, measured in batches[1:]:
        assert torch.equal(batch.images, batches[0][0].images)
        assert measured == batches[0][1]
    images, valid = batches[0][0].images, batches[0][0].valid
    assert valid is not None
    standard = standardize(images, torch.full((3, 1, 1), 0.4), torch.full((3, 1, 1), 0.2), valid)
    assert (standard.movedim(1, -1)[~valid] == 0).all()


def test_statistics_are_those_of_the_pixels_that_are_there() -> None:
    image = torch.from_numpy(noise(3)).permute(2, 0, 1)
    found = PixelSums.of(image, ~hole())
    kept = image[:, ~hole()].double() / 255
    assert found.count == 80 - 9
    assert found.total == pytest.approx(kept.sum(1).numpy())
    assert found.squares == pytest.approx(kept.square().sum(1).numpy())


@pytest.mark.parametrize("short_side", [None, 4])
@pytest.mark.parametrize("kind", ["png", "webp", "grey with alpha", "nodata"])
def test_a_packed_picture_keeps_its_hole(kind: str, short_side: int | None) -> None:
    picture = PICTURES[kind]()
    content = stored(picture, short_side)
    again: Picture = open_member(content.data, f"a{content.suffix}")
    image = again.decode()
    assert again.missing is not None
    if short_side is None:
        assert torch.equal(again.missing, hole())
    else:
        assert image.shape[-2:] == (4, 5)
        assert torch.equal(again.missing, ~cut_missing(hole(), Window(0, 0, 8, 10), (4, 5)))


def test_a_grey_png_of_sixteen_bits_has_a_transparent_value() -> None:
    pixels = np.random.default_rng(5).integers(1, 60_000, (8, 10)).astype(np.uint16)
    pixels[HOLE] = 7
    picture = encoded(Image.fromarray(pixels), "PNG", transparency=7)
    picture.decode()
    assert picture.missing is not None and picture.missing[HOLE].all()
    assert torch.equal(picture.missing, torch.from_numpy(pixels == 7))


def test_alpha_is_no_channel_that_holds_no_data_and_one_bit_holds_no_255() -> None:
    opaque = np.concatenate([noise(3) | 1, np.full((8, 10, 1), 255, np.uint8)], axis=2)
    opaque[HOLE] = (0, 0, 0, 255)
    picture = nodata(opaque, "0", "RGBA")
    picture.decode()
    assert picture.missing is not None and torch.equal(picture.missing, hole())
    bits = encoded_bits(noise(1)[..., 0] > 127)
    bits.decode()
    assert bits.missing is None


def encoded_bits(values: np.ndarray) -> EncodedPicture:
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[42113] = "255"
    info.tagtype[42113] = 2
    return encoded(Image.fromarray(values), "TIFF", tiffinfo=info)


def sparse() -> TensorPicture:
    """Return 64x64 floats of which every second pixel is there, each way."""
    values = np.full((1, 64, 64), np.nan, np.float32)
    values[:, ::2, ::2] = np.random.default_rng(6).random((1, 32, 32))
    return to_picture(values, "a.npy")


def test_where_no_pixel_is_left_at_the_model_s_size_that_is_said() -> None:
    with pytest.raises(ValueError, match=r"no pixel is there at the size that the model sees.*data\.image_size\)$"):
        measure_pixels([(torch.zeros(1, 4, 4), torch.zeros(4, 4, dtype=torch.bool))])


def test_a_picture_of_which_packing_would_leave_nothing_keeps_its_size() -> None:
    content = stored(sparse(), 32)
    again = open_member(content.data, f"a{content.suffix}")
    assert again.decode().shape == (1, 64, 64)
    assert again.missing is not None and again.missing.float().mean() == 0.75


def test_packing_measures_the_pixels_that_are_there(tmp_path: Path) -> None:
    values = np.random.default_rng(7).random((1, 8, 10)).astype(np.float32)
    values[0][HOLE] = np.nan
    np.save(tmp_path / "a.npy", np.concatenate([values, values]))
    source = open_splits("arrays", root=str(tmp_path / "a.npy")).whole
    assert source is not None
    packed, measured = encode_one(source, 0, PackOptions()), measure_one(source, 0)
    assert packed.sums is not None and measured is not None
    there = values[np.isfinite(values)].astype(np.float64)
    for sums in (packed.sums, measured.sums):
        assert sums.total == pytest.approx([there.mean()]) and sums.squares == pytest.approx([(there**2).mean()])
