from __future__ import annotations

import pytest
import torch

from mae.masking.noise import GOLDEN, image_keys, uniform
from mae.masking.samplers import MASKINGS

WORD = 2**64


def splitmix64(state: int) -> int:
    """Return the next number of the published generator, in plain integers."""
    z = (state + 0x9E3779B97F4A7C15) % WORD
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
    return z ^ (z >> 31)


def test_the_numbers_are_those_of_splitmix64_from_each_key() -> None:
    assert splitmix64(1234567) == 6457827717110365317  # the first of its authors' example
    keys = [1234567, -5, 2**63 - 1, -(2**63)]
    expected = [[(splitmix64((key + GOLDEN * place) % WORD) >> 40) / 2**24 for place in range(6)] for key in keys]
    assert uniform(torch.tensor(keys), 2, 3).flatten(1).tolist() == expected


def test_the_key_of_a_crop_depends_on_its_stream_image_and_repeat_alone() -> None:
    images = torch.tensor([7, 7, 9, 9, -(2**63), -(2**63)])
    keys = image_keys(5, images, repeats=2)
    assert len(set(keys.tolist())) == 6
    assert torch.equal(image_keys(5, images[2:4], repeats=2), keys[2:4])
    assert torch.equal(image_keys(5, images[::2]), keys[::2])  # the first crop is that of a run without repeats
    assert not set(image_keys(6, images, repeats=2).tolist()) & set(keys.tolist())


def test_numbers_are_uniform_and_neighbours_do_not_agree() -> None:
    drawn = uniform(image_keys(0, torch.arange(4000)), 64).double()
    assert float(drawn.min()) >= 0 and float(drawn.max()) < 1
    deviation = (1 / 12 / drawn.numel()) ** 0.5
    assert float(drawn.mean()) == pytest.approx(0.5, abs=4 * deviation)
    assert float(drawn.var()) == pytest.approx(1 / 12, rel=0.01)
    for first, second in ((drawn[:-1], drawn[1:]), (drawn[:, :-1], drawn[:, 1:])):  # of images, and of patches
        together = torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1]
        assert abs(float(together)) < 4 / first.numel() ** 0.5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_default_dtype_changes_nothing(dtype: torch.dtype) -> None:
    keys = image_keys(3, torch.arange(5))
    expected = uniform(keys, 196)
    torch.set_default_dtype(dtype)
    try:
        assert torch.equal(uniform(keys, 196), expected)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", ["random", "corruption", "block", "grid"])
def test_a_mask_is_that_of_its_key_whatever_the_batch(name: str) -> None:
    sampler, keys = MASKINGS.create(name=name), image_keys(1, torch.arange(12))
    whole = sampler.of_images(keys, (8, 6))
    parts = [sampler.of_images(part, (8, 6)) for part in (keys[:1], keys[1:5], keys[5:])]
    for field in ("keep", "masked", "mask"):
        assert torch.equal(torch.cat([getattr(part, field) for part in parts]), getattr(whole, field))
    assert len({row.numpy().tobytes() for row in whole.mask}) > 3


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["random", "corruption", "block", "grid"])
def test_a_gpu_draws_the_same_bits(name: str) -> None:
    keys = image_keys(1, torch.arange(4096))
    assert torch.equal(image_keys(1, torch.arange(4096, device="cuda")).cpu(), keys)
    assert torch.equal(uniform(keys.cuda(), 3, 196).cpu(), uniform(keys, 3, 196))
    if name != "block":  # its rectangles take roots, whose last bit a GPU may round the other way
        sampler = MASKINGS.create(name=name)
        assert torch.equal(sampler.of_images(keys.cuda(), (14, 14)).mask.cpu(), sampler.of_images(keys, (14, 14)).mask)
