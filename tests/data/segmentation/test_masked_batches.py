"""Images and masks cut together."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mae.data.loading.batches import ImageDataset, collate
from mae.data.reading.transforms import TrainTransform, Window
from mae.data.segmentation.mask_folders import SegmentationSource
from mae.data.segmentation.masks import IGNORE, SegmentationDataset, nearest_crop
from mae.data.splits import Splits
from tests.data.masked import (
    SIDE,
    board,
    checked,
    data_module,
    epoch,
    places,
    same,
    write_camvid,
    write_pair,
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> SegmentationSource:
    """Give images and masks that hold their own places: a small PNG, and a JPEG that is decoded at reduced scale."""
    root = tmp_path_factory.mktemp("places")
    for name, height, width in (("a.png", 90, 70), ("b.jpg", 400, 500)):
        image, mask = places(height, width)
        write_pair(
            root / "images" / name, (root / "masks" / name).with_suffix(".png"), mask, image, quality=95, subsampling=0
        )
    (root / "images/c.png").symlink_to(root / "images/a.png")
    (root / "masks/c.png").symlink_to(root / "masks/a.png")
    splits, _ = checked(root)
    assert isinstance(splits.whole, SegmentationSource)
    return splits.whole


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("image_size", [(32, 32), (24, 48)])
def test_masks_stay_with_their_images(pictures: SegmentationSource, index: int, image_size: tuple[int, int]) -> None:
    dataset = SegmentationDataset(pictures, TrainTransform(image_size, 0.2), 3, repeats=3)
    flips = set()
    for number in range(30):
        item = dataset[number, index]
        assert item.label.shape == (3, *image_size)
        for image, mask in zip(item.images.float() / 255, item.label.long(), strict=True):
            # The edges of a window are left out, where the filter of the image has no neighbours.
            red, green = image[:2, 2:-2, 2:-2]
            mask = mask[2:-2, 2:-2]
            for value, field in ((red, mask % SIDE), (green, mask // SIDE)):
                off = (value * SIDE - 0.5 - field).abs()
                assert off.max() < 0.5 + 0.35, (
                    "a pixel of the image lies in the field that its mask names, or on its border"
                )
            flips.add(bool(red[0, 0] > red[0, -1]))
    assert flips == {False, True}


def test_no_id_appears_that_was_not_there(tmp_path: Path) -> None:
    # Ids far apart: whatever mixes two of them is a third one.
    rng = np.random.default_rng(0)
    ids = np.array([0, 100, 200, 255], dtype=np.uint8)[rng.integers(0, 4, (37, 53))]
    write_pair(tmp_path / "images/a.png", tmp_path / "masks/a.png", ids)
    write_pair(tmp_path / "images/b.png", tmp_path / "masks/b.png", ids)
    source = checked(tmp_path)[0].train
    for size in (16, 64):
        dataset = SegmentationDataset(source, TrainTransform((size, size), 0.1), 3)
        seen = torch.stack([dataset[number, 0].label for number in range(50)]).unique()
        assert seen.tolist() == [0, 100, 200, 255]


def test_the_nearest_pixel_is_exact() -> None:
    rng = random.Random(0)
    cases = [((rng.randint(1, 90), rng.randint(1, 90)), (rng.randint(1, 60), rng.randint(1, 60))) for _ in range(60)]
    for (height, width), size in [*cases, ((960, 960), (224, 224)), ((16, 16), (16, 16))]:
        mask = torch.arange(height * width).view(height, width)
        window = Window(height // 3, width // 4, height - height // 3, width - width // 4)
        found = nearest_crop(mask, window, size)
        for i in {0, size[0] // 2, size[0] - 1}:
            for j in {0, size[1] // 3, size[1] - 1}:
                y = window.top + (2 * i + 1) * window.height // (2 * size[0])
                x = window.left + (2 * j + 1) * window.width // (2 * size[1])
                assert found[i, j] == mask[y, x]
                # The centre of the new pixel lies in the old one.
                assert 0 <= (i + 0.5) * window.height / size[0] - (y - window.top) <= 1


def test_an_evaluation_sees_all_that_fits_the_shape(pictures: SegmentationSource) -> None:
    data = data_module(Splits(pictures, pictures, None, "for the test"), image_size=(112, 112))
    batch = next(iter(data.val_dataloader()))
    assert batch.labels.shape == (2, 112, 112)
    # Of 400 x 500 the middle 400 x 400: every row of fields, and the columns 1 to 8.
    fields = batch.labels[1].long()
    assert (fields // SIDE).unique().tolist() == list(range(10))
    assert (fields % SIDE).unique().tolist() == list(range(1, 9))
    assert torch.equal(fields[0, :1], torch.tensor([1]))


def test_batches_hold_masks_of_bytes(tmp_path: Path) -> None:
    splits, _ = checked(write_camvid(tmp_path))
    data = data_module(splits, repeats=2)
    for batch in epoch(data):
        assert batch.labels.dtype == torch.uint8
        assert batch.labels.shape == (2, 16, 16)
        assert batch.indices[0] == batch.indices[1]
    assert [len(batch.labels) for batch in data.val_dataloader()] == [2, 1]
    assert len(epoch(data)) == 6


def test_two_workers_give_the_same_masks_as_none(tmp_path: Path) -> None:
    splits, _ = checked(write_camvid(tmp_path))
    alone, helped = (epoch(data_module(splits, num_workers=workers), 3) for workers in (0, 2))
    assert same(alone, helped)
    assert not same(alone, epoch(data_module(splits), 4))


def test_a_stopped_epoch_goes_on_with_the_very_next_masks(tmp_path: Path) -> None:
    splits, _ = checked(write_camvid(tmp_path))
    whole = epoch(data_module(splits), 1)
    loader = data_module(splits).train_dataloader()
    loader.sampler.set_epoch(1)
    batches = iter(loader)
    first = [next(batches)]
    again = data_module(splits).train_dataloader()
    again.sampler.set_epoch(1)
    again.load_state_dict(loader.state_dict())
    assert same(whole, [*first, *again])


def test_missing_pixels_have_no_label(tmp_path: Path) -> None:
    image, mask = np.full((40, 40, 4), 200, np.uint8), board(2, 40, 40)
    image[:15, :, 3] = 0
    for name in ("a", "b"):
        write_pair(tmp_path / f"images/{name}.png", tmp_path / f"masks/{name}.png", mask, image)
    splits, _ = checked(tmp_path)
    assert splits.whole is not None
    item = SegmentationDataset(splits.whole, TrainTransform((16, 16), 0.5), 3, repeats=4)[0, 0]
    assert item.valid is not None and not item.valid.all()
    assert torch.equal(item.label == IGNORE, ~item.valid)


def test_images_are_those_that_come_without_masks(pictures: SegmentationSource) -> None:
    transform = TrainTransform((16, 16), 0.3)
    for index in range(2):
        with_mask = collate([SegmentationDataset(pictures, transform, 3, seed=4)[2, index]])
        assert torch.equal(with_mask.images, collate([ImageDataset(pictures, transform, 3, seed=4)[2, index]]).images)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decode": "device"}, r"data\.decode=device cuts images alone, and not their masks: data\.decode=cpu"),
        ({"rand_augment": 9}, r"protocol\.rand_augment=9 moves pixels and leaves their masks behind"),
    ],
)
def test_what_masks_cannot_follow_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    splits, _ = checked(write_camvid(tmp_path))
    with pytest.raises(ValueError, match=message):
        data_module(splits, **changes)
    data_module(splits, masks=False, **changes)
