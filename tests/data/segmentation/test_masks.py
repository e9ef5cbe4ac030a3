"""What masks hold, and what becomes of those that are wrong."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mae.data.datamodule import ImageData
from mae.data.loading.batches import ImageDataset
from mae.data.reading.decode import UnreadableImageError
from mae.data.reading.transforms import EvalTransform
from mae.data.segmentation.masks import IGNORE, MaskError, MaskIds, SegmentationDataset, read_ids
from mae.run.exits import run_job
from tests.data.masked import (
    board,
    checked,
    data_module,
    epoch,
    opened,
    put,
    write_camvid,
)


def test_a_palette_names_ids_by_its_numbers(tmp_path: Path) -> None:
    ids = board(7)
    picture = Image.fromarray(ids, mode="P")
    picture.putpalette([value for number in range(256) for value in (200, number, 7)])
    picture.save(tmp_path / "m.png")
    assert read_ids(tmp_path / "m.png").tolist() == ids.tolist()


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16])
def test_ids_of_any_depth_are_read_as_stored(tmp_path: Path, dtype: type) -> None:
    ids = board(2).astype(dtype) if dtype is bool else board(7).astype(dtype) * (9000 if dtype is np.uint16 else 1)
    Image.fromarray(ids).save(tmp_path / "m.png")
    assert read_ids(tmp_path / "m.png").tolist() == ids.astype(int).tolist()


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_of_few_bits_is_not_stretched(tmp_path: Path, bits: int) -> None:
    # Pillow makes 0, 85, 170 and 255 of the values 0 to 3. It writes no such file, so this one is written by hand.
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"\0\x1b" if bits == 2 else b"\0\x01\x23"  # 0 1 2 3, behind the number of the filter
    header = struct.pack(">IIBBBBB", 4, 1, bits, 0, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "m.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    assert read_ids(tmp_path / "m.png").tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize(("ignore", "left"), [(255, [0, 1, 2, 3]), ([0, 3], [1, 2]), (None, [0, 1, 2, 3])])
def test_ids_without_a_label_become_255(ignore: Any, left: list[int]) -> None:
    ids = MaskIds.of(4, ignore)
    table = board(4)
    expected = np.where(np.isin(table, left), table, IGNORE)
    mask = ids.classify(table, "m.png")
    assert mask.dtype == torch.uint8
    assert mask.tolist() == expected.tolist()


def test_for_pretraining_there_are_images_without_labels(tmp_path: Path) -> None:
    for splits in (opened(write_camvid(tmp_path)), checked(tmp_path)[0]):
        for source in splits.parts:
            assert not source.classes
            assert source.labels is None
            assert ImageDataset(source, EvalTransform((16, 16)), 3)[0, 0].label == -1


class Iterate:
    """A job that takes every batch."""

    def __init__(self, data: ImageData) -> None:
        self.data = data

    def run(self) -> dict[str, Any]:
        epoch(self.data)
        return {}


@pytest.mark.parametrize("workers", [0, 1])
def test_a_mask_that_the_look_missed_ends_the_run_in_one_line(
    tmp_path: Path, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    splits, _ = checked(write_camvid(tmp_path))
    put(tmp_path, "trainannot/001.png", board(9))
    with pytest.raises(SystemExit) as ended:
        run_job(Iterate(data_module(splits, num_workers=workers)))
    assert ended.value.code == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"error: {tmp_path}/trainannot/001.png holds the id 8, and there are 3 classes, 0 to 2:")
    assert errors.count("\n") == 1


def test_a_mask_that_changed_its_size_under_a_run_is_named(tmp_path: Path) -> None:
    splits, _ = checked(write_camvid(tmp_path))
    put(tmp_path, "trainannot/001.png", board(3, 10, 10))
    with pytest.raises(MaskError, match=r"001\.png has 24 x 20 pixels, upright, and its mask 10 x 10"):
        epoch(data_module(splits))


def test_for_a_damaged_mask_another_image_stands_in(tmp_path: Path) -> None:
    (write_camvid(tmp_path) / "trainannot/001.png").write_bytes(b"damaged")
    splits, look = checked(tmp_path)
    assert look.count == 5
    dataset = SegmentationDataset(splits.train, EvalTransform((16, 16)), 3)
    item = dataset[0, 1]
    assert item.unreadable == (f"{tmp_path}/trainannot/001.png cannot be read as an image (of no known format)",)
    assert torch.equal(item.images, dataset[0, 2].images)
    assert torch.equal(item.label, dataset[0, 2].label)
    (tmp_path / "trainannot/001.png").unlink()
    with pytest.raises(UnreadableImageError, match="cannot be read"):
        splits.train.mask(1)
