from __future__ import annotations

import itertools

import pytest
import torch

from mae.masking.samplers import MASKINGS, RandomMasking
from mae.masking.seeds import seeded_generator


def hidden_patches(*key: int, batch: int = 4) -> list[list[int]]:
    return RandomMasking(0.75)(batch, (6, 6), seeded_generator("cpu", *key)).masked.tolist()


def test_the_same_seed_rank_epoch_and_batch_repeat_the_masks_exactly():
    assert hidden_patches(3, 1, 7, 2) == hidden_patches(3, 1, 7, 2)


def test_every_seed_rank_epoch_and_batch_has_masks_of_its_own():
    keys = list(itertools.product(range(3), repeat=4))
    drawn = {str(hidden_patches(*key)) for key in keys}
    assert len(drawn) == len(keys)


def test_images_of_a_batch_are_masked_differently():
    rows = hidden_patches(0, 0, 0, 0, batch=32)
    assert len({tuple(row) for row in rows}) == 32


def test_masks_do_not_depend_on_the_precision_of_the_run():
    # In bf16 a row of noise holds ties, which the sort would resolve in favour of the first patches.
    expected = hidden_patches(0, 0, 0, 0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        assert hidden_patches(0, 0, 0, 0) == expected
    finally:
        torch.set_default_dtype(torch.float32)


def test_every_patch_is_hidden_as_often_as_every_other():
    plan = RandomMasking(0.75)(4000, (4, 4), seeded_generator("cpu", 0))

    frequency = plan.mask.float().mean(dim=0)
    five_deviations = 5 * (0.75 * 0.25 / 4000) ** 0.5
    assert (frequency - 0.75).abs().max() < five_deviations


def test_drawing_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    hidden_patches(0, 0, 0, 0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("ratio", [0, 1, -0.1, 75])
def test_a_ratio_outside_zero_and_one_is_refused(ratio):
    with pytest.raises(ValueError, match=rf"masking\.ratio={ratio} .*such as 0\.75"):
        RandomMasking(ratio)


def test_a_sampler_can_be_checked_before_training_starts():
    assert RandomMasking(0.75).check((4, 4)) == 4
    with pytest.raises(ValueError, match="hides 4 of 4"):
        RandomMasking(0.9).check((2, 2))


def test_samplers_are_made_by_name_and_an_unknown_name_lists_the_known():
    assert MASKINGS.create(name="random", options={"ratio": 0.5}).check((4, 4)) == 8
    with pytest.raises(
        ValueError, match=r"masking\.name='rondom' is unknown: did you mean random\? It is one of random"
    ):
        MASKINGS.create(name="rondom")
