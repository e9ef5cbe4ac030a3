"""Files of many formats, against Pillow."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from mae.data.reading.decode import EncodedPicture, UnreadableImageError, read_size, to_channels
from tests.data.drawing import read_image, smooth

RGB = Image.fromarray(smooth(14, 22))
GREY = Image.fromarray(smooth(14, 22, 1)[..., 0])


def with_alpha(image: Image.Image) -> Image.Image:
    image = image.copy()
    image.putalpha(GREY)
    return image


def palette() -> Image.Image:
    return RGB.quantize(32)


def see_through_palette() -> Image.Image:
    image = RGB.quantize(32)
    image.info["transparency"] = bytes(range(1, 256, 8))  # wholly transparent is none
    return image


def deep() -> Image.Image:
    return Image.fromarray(smooth(14, 22, 1)[..., 0].astype(np.uint16) * 257)


def channels_last(tensor: torch.Tensor) -> np.ndarray:
    return tensor.permute(1, 2, 0).numpy()


# Name, picture, the mode that we want, and the largest mean difference in grey levels: JPEG decoders round differently.
FORMATS: list[tuple[str, Callable[[], Image.Image], str, float]] = [
    ("rgb.jpg", lambda: RGB, "RGB", 1.0),
    ("grey.jpeg", lambda: GREY, "L", 1.0),
    ("cmyk.jpg", lambda: RGB.convert("CMYK"), "RGB", 1.0),
    ("grey.png", lambda: GREY, "L", 0),
    ("rgb.png", lambda: RGB, "RGB", 0),
    ("rgba.png", lambda: with_alpha(RGB), "RGB", 0),
    ("grey and alpha.png", lambda: with_alpha(GREY), "L", 0),
    ("palette.png", palette, "RGB", 0),
    ("see-through palette.png", see_through_palette, "RGB", 0),
    ("bits.png", lambda: GREY.convert("1"), "L", 0),
    ("palette.gif", palette, "RGB", 0),
    ("rgb.tif", lambda: RGB, "RGB", 0),
    ("grey.tiff", lambda: GREY, "L", 0),
    ("rgb.bmp", lambda: RGB, "RGB", 0),
    ("rgb.webp", lambda: RGB, "RGB", 0),
    ("rgb.ppm", lambda: RGB, "RGB", 0),
    ("RGB.PNG", lambda: RGB, "RGB", 0),
]


@pytest.mark.parametrize(("name", "make", "mode", "tolerance"), FORMATS, ids=[case[0] for case in FORMATS])
def test_pixels_equal_those_that_pillow_reads(
    tmp_path: Path, name: str, make: Callable[[], Image.Image], mode: str, tolerance: float
) -> None:
    path = tmp_path / name
    make().save(path, **({"lossless": True} if path.suffix == ".webp" else {}))
    image = read_image(path)
    with Image.open(path) as opened:
        expected = np.atleast_3d(np.asarray(opened.convert(mode)))
    assert image.dtype == torch.uint8
    assert image.shape == (3 if mode == "RGB" else 1, 14, 22)
    difference = np.abs(channels_last(image).astype(int) - expected.astype(int))
    assert difference.mean() <= tolerance
    assert read_size(path) == (14, 22)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_keep_their_contrast(tmp_path: Path, suffix: str) -> None:
    # Pillow's own conversion clips everything above 255 to white.
    path = tmp_path / f"deep{suffix}"
    deep().save(path)
    image = read_image(path)
    assert image.dtype == torch.float32
    assert np.allclose(channels_last(image)[..., 0] * 255, smooth(14, 22, 1)[..., 0], atol=1e-3)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_images_stand_upright_as_their_exif_says(tmp_path: Path, suffix: str, orientation: int) -> None:
    path = tmp_path / f"turned{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    RGB.save(path, exif=exif, **({"lossless": True} if suffix == ".webp" else {}))
    with Image.open(path) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    image = read_image(path)
    assert tuple(image.shape[1:]) == expected.shape[:2]
    assert np.abs(channels_last(image).astype(int) - expected).mean() < 1
    assert read_size(path) == tuple(image.shape[1:])


def test_the_size_of_a_png_costs_no_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RGB.save(tmp_path / "a.png")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    assert read_size(tmp_path / "a.png") == (14, 22)
    assert EncodedPicture((tmp_path / "a.png").read_bytes(), "a.png").size == (14, 22)


@given(st.integers(1, 8), st.sampled_from([1, 2, 4, 8]), st.tuples(st.integers(5, 16), st.integers(5, 16)))
def test_a_jpeg_at_reduced_scale_is_the_whole_one_made_smaller(
    orientation: int, reduce: int, blocks: tuple[int, int]
) -> None:
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(smooth(8 * blocks[0], 8 * blocks[1])).save(file, "JPEG", exif=exif, quality=95)
    picture = EncodedPicture(file.getvalue(), "a.jpg")
    with Image.open(file) as opened:
        upright = ImageOps.exif_transpose(opened)
    assert picture.size == (upright.height, upright.width)
    image = picture.decode(reduce)
    assert image.shape == (3, -(-upright.height // reduce), -(-upright.width // reduce))
    expected = np.asarray(upright.resize((image.shape[2], image.shape[1]), Image.Resampling.BOX))
    assert np.abs(channels_last(image).astype(int) - expected.astype(int)).mean() < 2


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((8, 8), value, np.uint8)) for value in (10, 200, 90)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    image = read_image(tmp_path / "a.gif")
    assert image.shape[1:] == (8, 8)
    assert (image == 10).all()


def test_the_content_counts_not_the_suffix(tmp_path: Path) -> None:
    RGB.save(tmp_path / "really.png")
    (tmp_path / "really.png").rename(tmp_path / "named.jpg")
    assert np.array_equal(channels_last(read_image(tmp_path / "named.jpg")), smooth(14, 22))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".gif", ".tif", ".bmp", ".webp"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6])
def test_a_truncated_file_is_unreadable_and_named(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"cut{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UnreadableImageError, match=f"cut\\{suffix} cannot be read"):
        read_image(path)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".gif", ".webp", ".tif"])
def test_garbage_under_the_name_of_an_image_is_unreadable(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"garbage{suffix}"
    path.write_bytes(b"this is no image at all" * 20)
    with pytest.raises(UnreadableImageError, match="garbage"):
        read_image(path)
    with pytest.raises(UnreadableImageError, match="garbage"):
        read_size(path)


@given(st.sampled_from([".jpg", ".gif", ".webp", ".tif", ".png"]), st.data())
def test_changed_bytes_are_read_or_named(suffix: str, data: st.DataObject) -> None:
    content = bytearray(encoded_noise(suffix))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(UnreadableImageError):
        EncodedPicture(bytes(content), "damaged").decode()


@cache
def encoded_noise(suffix: str) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, Image.registered_extensions()[suffix])
    return file.getvalue()


FLIP_BYTES = """
import random, sys
from pathlib import Path
from mae.data.reading.decode import EncodedPicture, UnreadableImageError, read_bytes
rng = random.Random(0)
for whole in map(Path, sys.argv[1:]):
    damaged = whole.with_stem("damaged")
    for _ in range(40):
        content = bytearray(whole.read_bytes())
        for _ in range(rng.choice([1, 4])):
            content[rng.randrange(len(content))] = rng.randrange(256)
        damaged.write_bytes(content)
        print(whole.suffix, flush=True)
        try:
            EncodedPicture(read_bytes(damaged), str(damaged)).decode()
        except UnreadableImageError:
            pass
"""


@pytest.mark.slow
def test_flipped_bytes_never_end_the_process(tmp_path: Path) -> None:
    # In a process of its own: torchvision 0.29's PNG decoder ends it by a segmentation fault on a wrong checksum, so
    # that one bad sector of a disk would end a training of days.
    files = [tmp_path / f"whole{suffix}" for suffix in (".jpg", ".gif", ".webp", ".tif", ".png")]
    for file in files:
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)).save(file)
    done = subprocess.run(
        [sys.executable, "-c", FLIP_BYTES, *map(str, files)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout.split()[-1]}: {done.stderr[-500:]}"


def test_channels_are_repeated_or_weighted_by_luma() -> None:
    rgb = torch.from_numpy(smooth(5, 4)).permute(2, 0, 1)
    grey = np.asarray(Image.fromarray(smooth(5, 4)).convert("L"))
    assert np.abs(to_channels(rgb, 1)[0].numpy().astype(int) - grey).max() <= 1
    assert torch.equal(to_channels(rgb[:1], 3), rgb[:1].repeat(3, 1, 1))
    assert torch.equal(to_channels(rgb, 3), rgb)
