from __future__ import annotations

import torch

from mae.masking import seeds
from mae.masking.seeds import derive_seed, seeded_generator


def test_a_seed_is_a_function_of_its_key_that_never_changes():
    # Runs of before go on with these: written out from the version that first had them.
    assert derive_seed(1, 0, 0, 0, 0) == 4215923173971654960
    assert derive_seed(3, 5, 1, 2, 7) == 4815429816702841996


def test_every_purpose_has_a_number_of_its_own_that_never_changes():
    keys = {name: value for name, value in vars(seeds).items() if name.isupper()}
    assert keys == {"MASKS": 1, "VALIDATION": 2, "LAYERS": 3, "HEAD": 10}


def test_a_generator_draws_by_the_whole_key():
    first, same, other = (
        torch.rand(3, generator=seeded_generator("cpu", *key)) for key in ((1, 2, 3), (1, 2, 3), (1, 2, 4))
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
