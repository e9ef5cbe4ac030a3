"""The look at masks before a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mae.data.open_splits import open_splits
from mae.data.segmentation import mask_inspection as mask_look
from mae.data.segmentation.mask_inspection import open_masks
from mae.data.segmentation.masks import IGNORE, MaskError
from tests.data.masked import (
    board,
    checked,
    put,
    write_camvid,
    write_pair,
)


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


def test_ids_far_beyond_the_classes_can_be_ignored(tmp_path: Path) -> None:
    write_camvid(tmp_path)
    for path in sorted(tmp_path.glob("*annot/*.png")):
        put(tmp_path, str(path.relative_to(tmp_path)), np.where(board(3) == 2, 65535, board(3)).astype(np.uint16))
    splits, look = checked(tmp_path, ignore=[255, 65535])
    assert look.classes == ("0", "1")
    assert splits.train.mask(0).unique().tolist() == [0, 1, IGNORE]


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


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_colours_are_refused(tmp_path: Path, mode: str) -> None:
    write_camvid(tmp_path)
    Image.fromarray(board(3)).convert(mode).save(tmp_path / "valannot/002.png")
    with pytest.raises(MaskError, match=rf"valannot/002\.png holds colours \({mode}\), .* one channel, or a palette"):
        checked(tmp_path)
