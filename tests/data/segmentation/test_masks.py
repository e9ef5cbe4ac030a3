"""What masks hold, and the look at them before a run."""

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
from mae.data.open_splits import open_splits
from mae.data.reading.decode import UnreadableImageError
from mae.data.reading.transforms import EvalTransform
from mae.data.segmentation import mask_inspection as mask_look
from mae.data.segmentation.mask_inspection import open_masks
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
    write_pair,
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


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_colours_are_refused(tmp_path: Path, mode: str) -> None:
    write_camvid(tmp_path)
    Image.fromarray(board(3)).convert(mode).save(tmp_path / "valannot/002.png")
    with pytest.raises(MaskError, match=rf"valannot/002\.png holds colours \({mode}\), .* one channel, or a palette"):
        checked(tmp_path)


@pytest.mark.parametrize(("ignore", "left"), [(255, [0, 1, 2, 3]), ([0, 3], [1, 2]), (None, [0, 1, 2, 3])])
def test_ids_without_a_label_become_255(ignore: Any, left: list[int]) -> None:
    ids = MaskIds.of(4, ignore)
    table = board(4)
    expected = np.where(np.isin(table, left), table, IGNORE)
    mask = ids.classify(table, "m.png")
    assert mask.dtype == torch.uint8
    assert mask.tolist() == expected.tolist()


def test_ids_far_beyond_the_classes_can_be_ignored(tmp_path: Path) -> None:
    write_camvid(tmp_path)
    for path in sorted(tmp_path.glob("*annot/*.png")):
        put(tmp_path, str(path.relative_to(tmp_path)), np.where(board(3) == 2, 65535, board(3)).astype(np.uint16))
    splits, look = checked(tmp_path, ignore=[255, 65535])
    assert look.classes == ("0", "1")
    assert splits.train.mask(0).unique().tolist() == [0, 1, IGNORE]


def test_classes_are_counted_in_the_training_masks(tmp_path: Path) -> None:
    write_camvid(tmp_path, classes=4)
    splits, look = checked(tmp_path, ignore=3)
    assert splits.train.mask_classes == splits.val.mask_classes == look.classes == ("0", "1", "2")
    # Stripes of 6 of the 24 columns, 20 rows, 6 masks.
    assert look.pixels.tolist() == [6 * 20 * 6] * 3
    assert (look.unlabelled, look.count) == (6 * 20 * 6, 6)
    assert str(look) == "3 classes in 6 masks; 25.0% of the pixels have no label, and 33.3% of the others are '0'"


def test_classes_can_be_named_and_be_more_than_occur(tmp_path: Path) -> None:
    splits, look = checked(write_camvid(tmp_path), classes=["sky", "road", "tree", "car"])
    assert splits.train.mask_classes == ("sky", "road", "tree", "car")
    assert look.pixels.tolist()[3] == 0


def test_for_pretraining_there_are_images_without_labels(tmp_path: Path) -> None:
    for splits in (opened(write_camvid(tmp_path)), checked(tmp_path)[0]):
        for source in splits.parts:
            assert not source.classes
            assert source.labels is None
            assert ImageDataset(source, EvalTransform((16, 16)), 3)[0, 0].label == -1


def test_data_without_masks_are_refused() -> None:
    with pytest.raises(ValueError, match="segmentation needs masks, and these data have none"):
        open_masks(open_splits("digits"))


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_mask_of_another_size_is_named(tmp_path: Path, split: str) -> None:
    put(write_camvid(tmp_path), f"{split}annot/002.png", board(3, 20, 25))
    message = rf"{split}/002\.png has 24 x 20 pixels, upright, and its mask 25 x 20: draw or resize it anew"
    with pytest.raises(MaskError, match=message):
        checked(tmp_path)


def test_sizes_are_compared_as_exif_turns_the_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    write_camvid(tmp_path)
    for number in range(2):
        stem = f"turned{number}"
        write_pair(tmp_path / f"train/{stem}.jpg", tmp_path / f"trainannot/{stem}.png", board(3), exif=exif)
        put(tmp_path, f"trainannot/{stem}.png", board(3, 24, 20))
    checked(tmp_path)
    put(tmp_path, "trainannot/turned1.png", board(3))
    with pytest.raises(MaskError, match=r"turned1\.jpg has 20 x 24 pixels, upright, and its mask 24 x 20"):
        checked(tmp_path)


@pytest.mark.parametrize("split", ["train", "val"])
def test_ids_past_the_classes_are_named(tmp_path: Path, split: str) -> None:
    put(write_camvid(tmp_path), f"{split}annot/001.png", board(5))
    message = (
        rf"{split}annot/001\.png holds the id 4, and there are 3 classes, 0 to 2: data\.classes=5 counts it, "
        r"data\.ignore=\[255,4\] passes over it"
    )
    with pytest.raises(MaskError, match=message):
        checked(tmp_path, classes=3)
    assert len(checked(tmp_path, classes=5)[1].classes) == 5


def test_classes_found_in_training_hold_for_validation(tmp_path: Path) -> None:
    put(write_camvid(tmp_path), "valannot/001.png", board(4))
    with pytest.raises(MaskError, match=r"valannot/001\.png holds the id 3, and there are 3 classes"):
        checked(tmp_path)


def test_more_classes_than_a_byte_holds_are_refused(tmp_path: Path) -> None:
    put(write_camvid(tmp_path), "trainannot/001.png", board(3).astype(np.uint16) * 130)
    with pytest.raises(
        MaskError, match=r"holds the id 260, and there can be 255 classes, 0 to 254: data\.ignore=\[255,260\]"
    ):
        checked(tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0, 0), "the 6 training masks looked at hold one class, 0: segmentation tells two or more apart"),
        ((0, 255), "one class, 0; pixels of 255 are passed over, as data.ignore says: segmentation tells"),
        ((255, 255), "no label; pixels of 255 are passed over"),
    ],
)
def test_a_single_class_is_refused(tmp_path: Path, values: tuple[int, int], message: str) -> None:
    write_camvid(tmp_path)
    for number in range(6):
        put(tmp_path, f"trainannot/{number:03}.png", np.array(values, dtype=np.uint8)[board(2)])
    with pytest.raises(ValueError, match=message):
        checked(tmp_path)


def test_a_look_decodes_masks_that_are_evenly_spread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask_look, "MASKS_DECODED", 3)
    put(write_camvid(tmp_path), "trainannot/001.png", board(9))
    splits, look = checked(tmp_path)
    assert look.count == 3
    assert len(look.classes) == 3
    with pytest.raises(MaskError, match=r"001\.png holds the id 8"):
        splits.train.mask(1)


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
