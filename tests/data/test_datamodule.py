"""Batches: what is in them, and in which order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mae.data.datamodule import ImageData
from mae.data.loading.batches import Batch, ImageDataset
from mae.data.reading.transforms import EvalTransform
from mae.data.sources.bundled import TensorSource
from mae.data.sources.file_index import scan
from mae.data.sources.files import FileSource
from mae.data.splits import Splits
from tests.data.drawing import seen, smooth, write_folder


def pictures(count: int, *, channels: int = 3, labelled: bool = True) -> TensorSource:
    """Different pictures in memory, labelled by their number modulo 3."""
    images = np.stack([smooth(20, 24, channels, seed) for seed in range(count)])
    labels = np.arange(count) % 3 if labelled else None
    return TensorSource(torch.from_numpy(images).permute(0, 3, 1, 2), labels, tuple("abc") if labelled else ())


def build(count: int = 23, *, val: int = 7, test: int | None = None, **changes: Any) -> ImageData:
    splits = Splits(pictures(count), pictures(val), None if test is None else pictures(test), "for the test")
    options: dict[str, Any] = {
        "image_size": (16, 16),
        "channels": 3,
        "effective_batch": 4,
        "micro_batch": 4,
        "min_scale": 0.3,
        "flip": True,
        "num_workers": 0,
        "seed": 5,
    }
    return ImageData(splits, **{**options, **changes})


def epoch(data: ImageData, number: int) -> list[Batch]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(number)
    return list(loader)


def order(batches: list[Batch]) -> list[int]:
    return torch.cat([batch.indices for batch in batches]).tolist()


def same(first: list[Batch], second: list[Batch]) -> bool:
    return all(torch.equal(a, b) for x, y in zip(first, second, strict=True) for a, b in zip(x[:3], y[:3], strict=True))


def test_batches_are_bytes_with_labels_and_indices() -> None:
    batch = epoch(build(), 0)[0]
    assert batch.images.dtype == torch.uint8
    assert batch.images.shape == (4, 3, 16, 16)
    assert batch.labels.dtype == batch.indices.dtype == torch.int64
    assert batch.labels.tolist() == [index % 3 for index in batch.indices.tolist()]


def test_labels_that_are_not_there_are_minus_one() -> None:
    data = ImageDataset(pictures(3, labelled=False), EvalTransform((16, 16)), 3)
    assert [data[0, i][1] for i in range(3)] == [-1] * 3


@pytest.mark.parametrize("channels", [1, 3])
def test_images_come_in_the_channels_of_the_model(channels: int) -> None:
    dataset = ImageDataset(pictures(2, channels=4 - channels), EvalTransform((16, 16)), channels)
    assert dataset[0, 0].images[0].shape == (channels, 16, 16)


def test_an_epoch_holds_each_image_once_less_the_remainder() -> None:
    # 23 images in batches of 4: 3 of them wait for another epoch's order.
    seen = order(epoch(build(), 0))
    assert len(seen) == len(set(seen)) == 20
    assert set().union(*(order(epoch(build(), number)) for number in range(6))) == set(range(23))


def test_order_crops_and_flips_are_a_function_of_seed_and_epoch() -> None:
    first = epoch(build(), 3)
    torch.manual_seed(99)
    assert same(first, epoch(build(), 3))
    assert order(first) != order(epoch(build(), 4))
    assert order(first) != order(epoch(build(seed=6), 3))


def test_an_image_is_cropped_anew_each_epoch() -> None:
    crops = []
    for number in (0, 1):
        batches = epoch(build(count=20), number)
        images, index = torch.cat([b.images for b in batches]), torch.cat([b.indices for b in batches])
        crops.append(images[index.argsort()])
    assert not any(torch.equal(a, b) for a, b in zip(*crops, strict=True))


def test_two_workers_give_the_same_pixels_as_none() -> None:
    # Persistent workers live across epochs, so that the second epoch must reach them too.
    alone, helped = build(), build(num_workers=2)
    loader = helped.train_dataloader()
    for number in (0, 1):
        loader.sampler.set_epoch(number)
        assert same(epoch(alone, number), list(loader))


def test_evaluation_keeps_order_and_pixels_whatever_the_batch() -> None:
    small, large = build(micro_batch=2, test=9), build(micro_batch=5, test=9)
    for name in ("val_dataloader", "test_dataloader"):
        images = [torch.cat([b.images for b in getattr(data, name)()]) for data in (small, large)]
        assert torch.equal(*images)
    index = torch.cat([b.indices for b in small.val_dataloader()])
    assert index.tolist() == list(range(7))


def test_part_of_a_source_is_drawn_from_all_of_it_and_the_same_in_every_run() -> None:
    parts = [order(build(count=100).evaluation_loader(pictures(100), most=50)) for _ in range(2)]
    assert parts[0] == parts[1] == sorted(set(parts[0]))
    assert len(parts[0]) == 50
    # Classes that take turns are all there: every second image would be of one of two.
    assert 10 < sum(index % 2 for index in parts[0]) < 40


def test_fewer_images_than_a_batch_is_an_error_that_says_how_many_there_are() -> None:
    with pytest.raises(ValueError, match="batch_size=32 is more than the 23 training images: choose 23 or less"):
        build(effective_batch=32)


def test_steps_per_epoch_are_the_batches_that_come() -> None:
    for batch in (1, 4, 5, 23):
        data = build(effective_batch=batch, micro_batch=batch)
        assert data.steps_per_epoch == len(data.train_dataloader()) == len(epoch(data, 0))


def test_statistics_are_those_of_the_images_as_evaluation_shows_them() -> None:
    data = build()
    shown = np.stack([seen(EvalTransform((16, 16)), data.splits.train.image(i)).numpy() for i in range(23)]) / 255
    mean, std = data.measure_pixels()
    assert mean == pytest.approx(shown.mean(axis=(0, 2, 3)), abs=1e-5)
    assert std == pytest.approx(shown.std(axis=(0, 2, 3)), abs=1e-5)


@pytest.fixture
def damaged(tmp_path: Path) -> Callable[[], FileSource]:
    """Give a labelled folder of 8 images, of which the fourth, the last of its class, is damaged."""

    def make() -> FileSource:
        root = write_folder(tmp_path, 8)
        broken = root / "image_003.png"
        broken.write_bytes(broken.read_bytes()[:40])
        return FileSource(root, scan(root).names, np.array([0, 0, 0, 0, 1, 1, 1, 1]), ("a", "b"))

    return make


def test_a_damaged_file_is_named_and_batches_keep_their_size(damaged: Callable[[], FileSource]) -> None:
    source = damaged()
    data = ImageData(
        Splits(source, source, None, ""),
        image_size=(16, 16),
        channels=3,
        effective_batch=4,
        micro_batch=4,
        min_scale=0.3,
        flip=True,
        num_workers=0,
        seed=0,
    )
    with pytest.warns(UserWarning, match=r"image_003\.png cannot be read"):
        batches = epoch(data, 0)
    assert [len(batch.images) for batch in batches] == [4, 4]


def test_the_image_that_stands_in_brings_its_own_label(damaged: Callable[[], FileSource]) -> None:
    dataset = ImageDataset(damaged(), EvalTransform((16, 16)), 3)
    images, label, _, unreadable, _ = dataset[0, 3]
    assert [message.partition(" cannot")[0].rpartition("/")[2] for message in unreadable] == ["image_003.png"]
    assert torch.equal(images, dataset[0, 4].images)
    assert label == 1
