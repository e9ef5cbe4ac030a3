"""Random streams as functions of their keys: nothing random has a state that a stop could lose."""

from __future__ import annotations

import numpy as np
import torch

# First numbers of the keys, one a purpose. Runs depend on them: a number that was given is not given again.
MASKS = 1
"""Training masks: (seed, epoch)."""
VALIDATION = 2
"""Validation masks, the same in every run."""
LAYERS = 3
"""What layers draw, such as drop path: (seed, rank, epoch, batch)."""
# 4 was that of the images of a probe that earlier versions trained beside.
HEAD = 10
"""The first weights of a head: (seed)."""


def derive_seed(*key: int) -> int:
    """Return a seed that is a function of the key alone, such as (seed, rank, epoch, batch).

    Neighbouring keys give unrelated streams (numpy's SeedSequence mixes them), so ranks differ, and a resumed run
    repeats exactly what it would have drawn. Keys that differ in trailing zeros alone are the same to it: keys of
    different purposes begin with different numbers.
    """
    (state,) = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return int(state) >> 1  # torch takes a signed 64-bit seed


def seeded_generator(device: torch.device | str, *key: int) -> torch.Generator:
    """Return a generator whose stream is a function of the key alone."""
    return torch.Generator(device).manual_seed(derive_seed(*key))
