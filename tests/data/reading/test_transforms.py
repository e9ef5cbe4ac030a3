"""Crops and flips."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mae.data.reading.transforms import EvalTransform, TrainTransform
from tests.data.drawing import seen, smooth


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()


SIDES = st.integers(1, 300)


@given(
    st.tuples(SIDES, SIDES), st.tuples(st.integers(1, 64), st.integers(1, 64)), st.floats(0.01, 1), st.integers(0, 99)
)
def test_windows_lie_inside_the_image(shape: tuple[int, int], size: tuple[int, int], share: float, seed: int) -> None:
    rng = random.Random(seed)
    for window in (TrainTransform(size, share).draw(shape, rng), EvalTransform(size, share).draw(shape)):
        assert window.height >= 1
        assert window.width >= 1
        assert 0 <= window.top <= window.top + window.height <= shape[0]
        assert 0 <= window.left <= window.left + window.width <= shape[1]


@pytest.mark.parametrize("size", [(16, 16), (16, 32)])
def test_training_crops_keep_area_and_aspect_in_bounds_and_use_them(size: tuple[int, int]) -> None:
    transform, rng = TrainTransform(size, min_scale=0.2), random.Random(0)
    crops = np.array([transform.draw((400, 500), rng)[2:] for _ in range(2000)])
    area = crops.prod(axis=1) / (400 * 500)
    aspect = crops[:, 1] / crops[:, 0] / (size[1] / size[0])
    # Sides are whole pixels, hence the hundredth of room.
    assert area.min() > 0.2 * 0.99
    assert area.max() <= 1
    assert aspect.min() > 3 / 4 * 0.99
    assert aspect.max() < 4 / 3 * 1.01
    assert area.min() < 0.25
    assert aspect.min() < 0.8
    assert aspect.max() > 1.25


def test_crops_reach_every_corner() -> None:
    transform, rng = TrainTransform((16, 16), min_scale=0.5), random.Random(0)
    crops = np.array([transform.draw((40, 40), rng) for _ in range(1000)])
    assert crops[:, 0].min() == crops[:, 1].min() == 0
    assert (crops[:, 0] + crops[:, 2]).max() == (crops[:, 1] + crops[:, 3]).max() == 40


def test_a_whole_scale_cuts_off_only_what_the_shape_demands() -> None:
    transform = TrainTransform((16, 16), min_scale=1.0, flip=False)
    assert transform.draw((30, 50), random.Random(0)) == (0, 10, 30, 30)
    image = tensor(smooth(16, 16))
    assert torch.equal(seen(transform, image, random.Random(5)), image)


def test_all_chance_comes_from_the_generator() -> None:
    transform, image = TrainTransform((16, 16)), tensor(smooth(40, 50))
    torch.manual_seed(1)
    first = seen(transform, image, random.Random(7))
    torch.manual_seed(2)
    random.seed(3)
    assert torch.equal(first, seen(transform, image, random.Random(7)))
    assert not torch.equal(first, seen(transform, image, random.Random(8)))


def test_half_the_images_are_mirrored_and_none_without_flip() -> None:
    image = tensor(smooth(16, 16))
    flips = [
        torch.equal(seen(TrainTransform((16, 16), 1.0), image, random.Random(seed)), image.flip(-1))
        for seed in range(400)
    ]
    assert 150 < sum(flips) < 250
    plain = TrainTransform((16, 16), 1.0, flip=False)
    assert all(torch.equal(seen(plain, image, random.Random(seed)), image) for seed in range(50))


@pytest.mark.parametrize("scale", [0, -0.5, 1.1])
def test_a_scale_that_is_no_share_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match=r"data\.min_scale"):
        TrainTransform((16, 16), scale)


@given(
    st.tuples(st.integers(12, 90), st.integers(12, 90)),
    st.sampled_from([(16, 16), (8, 24), (32, 16)]),
    st.sampled_from([1.0, 0.875]),
)
def test_evaluation_equals_pillows_centre_crop_and_bicubic(
    shape: tuple[int, int], size: tuple[int, int], share: float
) -> None:
    array = smooth(*shape)
    scale = min(shape[0] / size[0], shape[1] / size[1]) * share
    height, width = size[0] * scale, size[1] * scale
    left, top = (shape[1] - width) / 2, (shape[0] - height) / 2
    expected = Image.fromarray(array).resize(
        (size[1], size[0]), Image.Resampling.BICUBIC, box=(left, top, left + width, top + height)
    )
    ours = seen(EvalTransform(size, share), tensor(array))
    assert ours.dtype == torch.uint8
    assert ours.shape == (3, *size)
    # Ours cuts at whole pixels, which shows where there are few.
    bound = 2 if min(shape) >= 60 else 8
    assert np.abs(ours.permute(1, 2, 0).numpy().astype(float) - np.asarray(expected, float)).mean() < bound


def test_shrinking_is_antialiased() -> None:
    # A fourth of the side averages sixteen pixels of noise; four taps alone would keep two thirds of its deviation.
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 64, 64), dtype=np.uint8))
    before = noise.float().std()
    assert seen(EvalTransform((16, 16)), noise).float().std() < 0.4 * before
    assert seen(TrainTransform((16, 16), 0.99, flip=False), noise, random.Random(0)).float().std() < 0.4 * before


def test_evaluation_is_the_same_each_time_and_keeps_images_that_fit() -> None:
    image = tensor(smooth(16, 16))
    assert torch.equal(seen(EvalTransform((16, 16)), image), image)
    large = tensor(smooth(50, 70))
    results = [seen(EvalTransform((16, 16)), large, random.Random(seed)) for seed in range(3)]
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_a_circle_stays_round() -> None:
    # The crop has the wanted shape before it is resized: nothing is squeezed.
    y, x = np.mgrid[0:60, 0:120]
    disc = ((np.hypot(y - 29.5, x - 59.5) < 20) * 255).astype(np.uint8)[..., None]
    shown = seen(EvalTransform((30, 30)), tensor(disc))[0] > 127
    height, width = (int(shown.any(axis).sum()) for axis in (1, 0))
    assert abs(height - width) <= 1
    assert math.isclose(height, 20, abs_tol=1)
