"""RandAugment: where its chance comes from, and how strong it is."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import Tensor

from mae.data.reading.augment import RandAugment
from mae.data.reading.transforms import TrainTransform
from tests.data.drawing import seen, smooth
from tests.data.test_datamodule import build, epoch, same


def picture(channels: int = 3, seed: int = 0) -> Tensor:
    return torch.from_numpy(smooth(16, 20, channels, seed)).permute(2, 0, 1).contiguous()


def test_all_chance_comes_from_the_generator() -> None:
    augment, image = RandAugment(9), picture()
    first = [augment(image, random.Random(seed)) for seed in range(40)]

    random.seed(99)
    np.random.seed(99)  # noqa: NPY002
    torch.manual_seed(99)
    again = [RandAugment(9)(image, random.Random(seed)) for seed in range(40)]

    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    # An operation is left out half the time, so a fourth of the images stay as they are.
    assert len({tuple(result.flatten().tolist()) for result in first}) > 20


def test_a_generator_goes_on_from_image_to_image() -> None:
    augment, rng = RandAugment(9), random.Random(0)
    results = [augment(picture(), rng) for _ in range(40)]
    assert len({tuple(result.flatten().tolist()) for result in results}) > 20


def test_the_generator_draws_two_operations_of_all_there_are() -> None:
    # timm draws from numpy which operations come, and from random how strong they are and whether.
    augment, drawn = RandAugment(9), []
    for operation in augment.apply.ops:
        operation.prob = 1.0
        operation.aug_fn = lambda image, *_, name=operation.name, **__: drawn.append(name) or image

    for seed in range(200):
        augment(picture(), random.Random(seed))

    assert len(drawn) == 400
    assert set(drawn) == {operation.name for operation in augment.apply.ops}
    assert len(set(drawn)) == 15
    assert max(drawn.count(name) for name in set(drawn)) < 60


def test_the_global_generators_are_left_as_they_were() -> None:
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(3)
    random.gauss(0, 1)  # the second value of the pair is part of the state
    before, before_numpy, before_torch = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002

    for seed in range(20):
        RandAugment(9)(picture(), random.Random(seed))

    after_numpy = np.random.get_state()  # noqa: NPY002
    assert random.getstate() == before
    assert all(np.array_equal(a, b) for a, b in zip(before_numpy, after_numpy, strict=True))
    assert torch.equal(torch.get_rng_state(), before_torch)


def test_the_global_generators_are_left_alone_by_an_error_too() -> None:
    random.seed(3)
    before = random.getstate()
    with pytest.raises((TypeError, ValueError, RuntimeError)):
        RandAugment(9)(torch.zeros(3, 4, dtype=torch.float64), random.Random(0))
    assert random.getstate() == before


def test_images_keep_shape_and_bytes() -> None:
    for channels, magnitude, count in ((1, 1, 40), (3, 9, 100), (1, 10, 100), (3, 10, 200)):
        augment, image = RandAugment(magnitude), picture(channels)
        before = image.clone()
        for seed in range(count):
            result = augment(image, random.Random(seed))
            assert result.shape == (channels, 16, 20)
            assert result.dtype == torch.uint8
        assert torch.equal(image, before)


def test_a_grey_image_is_augmented_as_the_colour_image_that_looks_like_it() -> None:
    augment, grey = RandAugment(9), picture(1)
    for seed in range(40):
        coloured = augment(grey.expand(3, -1, -1), random.Random(seed))
        alone = augment(grey, random.Random(seed))
        assert (coloured.int() - alone.int()).abs().max() <= 1


def test_images_change_more_the_greater_the_magnitude() -> None:
    image = picture()

    def change(magnitude: float) -> float:
        augment = RandAugment(magnitude)
        results = [augment(image, random.Random(seed)) for seed in range(100)]
        return float(np.mean([(result.float() - image.float()).abs().mean() for result in results]))

    changes = [change(magnitude) for magnitude in (1, 5, 9)]
    assert changes == sorted(changes)
    assert changes[-1] > 1.3 * changes[0]


@pytest.mark.parametrize("name", ["Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel"])
def test_uncovered_corners_are_grey(name: str) -> None:
    augment, white = RandAugment(9), torch.full((3, 32, 32), 255, dtype=torch.uint8)
    augment.apply.ops = [operation for operation in augment.apply.ops if operation.name == name]
    results = torch.stack([augment(white, random.Random(seed)) for seed in range(40)])
    corners = results[:, :, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners.min(), corners.max()) == (128, 255)


def test_it_follows_crop_and_flip_and_is_off_at_zero() -> None:
    image = picture()
    plain, off, on = (TrainTransform((16, 16), 0.5, True, magnitude) for magnitude in (0, 0, 9))
    changed = 0
    for seed in range(40):
        rng = random.Random(seed)
        cropped = seen(plain, image, rng)
        assert torch.equal(seen(off, image, random.Random(seed)), cropped)
        result = seen(on, image, random.Random(seed))
        assert torch.equal(result, RandAugment(9)(cropped, rng))
        changed += not torch.equal(result, cropped)
    assert changed > 20


def test_order_and_pixels_are_the_same_with_two_workers_as_with_none() -> None:
    # Persistent workers have generators of their own, which must not matter in the second epoch either.
    alone, helped = build(rand_augment=9), build(rand_augment=9, num_workers=2)
    loader = helped.train_dataloader()
    for number in (0, 1):
        loader.sampler.set_epoch(number)
        random.seed(number)
        np.random.seed(number)  # noqa: NPY002
        assert same(epoch(alone, number), list(loader))
    assert not same(epoch(alone, 0), epoch(build(), 0))


def test_only_training_images_are_augmented() -> None:
    strong, plain = build(rand_augment=9, test=5), build(test=5)
    for name in ("val_dataloader", "test_dataloader"):
        assert same(list(getattr(strong, name)()), list(getattr(plain, name)()))
