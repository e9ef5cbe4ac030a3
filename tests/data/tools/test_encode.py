"""Images as they are stored in shards."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mae.data.reading.decode import EncodedPicture
from mae.data.reading.transforms import EvalTransform
from mae.data.tools.encode import encoded, stored
from tests.data.drawing import seen, smooth, write_image


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("grey", [False, True])
def test_smaller_images_are_those_of_pillow(tmp_path: Path, suffix: str, grey: bool) -> None:
    path = write_image(tmp_path / f"image.{suffix}", 300, 420, grey=grey)
    content = stored(EncodedPicture(path.read_bytes(), "image"), 32)
    assert content.suffix == f".{suffix}"
    small = EncodedPicture(content.data, "small").decode()
    with Image.open(path) as opened:
        expected = np.atleast_3d(np.asarray(opened.resize((45, 32), Image.Resampling.BICUBIC)))
    assert small.shape == (1 if grey else 3, 32, 45)
    assert np.abs(small.permute(1, 2, 0).numpy().astype(int) - expected).mean() < 2


def test_images_that_are_small_already_keep_their_bytes(tmp_path: Path) -> None:
    path = write_image(tmp_path / "image.jpg", 32, 40)
    assert stored(EncodedPicture(path.read_bytes(), "image"), 32).data == path.read_bytes()
    assert stored(EncodedPicture(path.read_bytes(), "image"), 100).data == path.read_bytes()


def test_turned_photographs_are_stored_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(smooth(64, 96)).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    turned = EncodedPicture((tmp_path / "turned.jpg").read_bytes(), "turned")
    small = EncodedPicture(stored(turned, 32).data, "small")
    assert (small.size, small.orientation) == ((48, 32), 1)
    whole = seen(EvalTransform((48, 32)), turned.decode())
    assert (small.decode().int() - whole.int()).abs().float().mean() < 3


def test_the_suffix_is_that_of_the_content(tmp_path: Path) -> None:
    shutil.copy(write_image(tmp_path / "true.png"), tmp_path / "false.jpg")
    data = (tmp_path / "false.jpg").read_bytes()
    assert stored(EncodedPicture(data, "false.jpg"), None) == (data, ".png")


def read_back(image: torch.Tensor) -> tuple[str, torch.Tensor]:
    from mae.data.shards.shard_source import open_member

    content = encoded(image)
    return content.suffix, open_member(content.data, f"image{content.suffix}").decode()


def test_pixels_in_memory_are_stored_without_loss() -> None:
    deep = torch.arange(64).view(1, 8, 8) * 1000 / 65535
    for image, suffix in (
        (torch.from_numpy(smooth(8, 9, 1)).permute(2, 0, 1), ".png"),
        (torch.from_numpy(smooth(8, 9, 3)).permute(2, 0, 1), ".png"),
        (torch.from_numpy(smooth(8, 9, 5)).permute(2, 0, 1), ".npy"),
        (deep, ".npy"),
        (torch.randn(2, 8, 8), ".npy"),
    ):
        name, back = read_back(image)
        assert name == suffix
        assert back.dtype == image.dtype
        assert torch.equal(back, image)
    assert np.load(io.BytesIO(encoded(deep).data)).dtype == np.uint16, "half the room of floats"


def test_images_of_16_bits_stay_so_when_they_are_made_smaller(tmp_path: Path) -> None:
    values = (np.add.outer(np.arange(64), np.arange(80)) * 400).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    content = stored(EncodedPicture((tmp_path / "deep.png").read_bytes(), "deep"), 16)
    array = np.load(io.BytesIO(content.data))
    assert (array.dtype, array.shape) == (np.uint16, (1, 16, 20))
    assert np.abs(array[0, 4:-4, 4:-4].astype(int) - values[18:-16:4, 18:-16:4][:8, :12]).max() <= 400
