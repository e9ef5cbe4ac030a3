"""The order of images: a function of the seed, the epoch and the rank, whatever the workers do."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

Key = tuple[int, int]
"""(epoch, index): with the seed all that an image's crop and flip depend on."""


class ResumableSampler(Sampler[Key]):
    """An order that can be entered in the middle.

    Attributes:
        first: Keys to pass over in the next iteration, which begins with the one after.
    """

    first = 0


class ShuffledSampler(ResumableSampler):
    """A permutation drawn from (seed, epoch), cut to whole effective batches and dealt out to the ranks."""

    def __init__(self, length: int, effective_batch: int, seed: int, rank: int = 0, world: int = 1) -> None:
        self.length = length
        self.total = length // effective_batch * effective_batch
        self.seed = seed
        self.rank = rank
        self.world = world
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch, also after a resume."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.total // self.world

    def __iter__(self) -> Iterator[Key]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
        for index in order[: self.total][self.rank :: self.world][self.first :]:
            yield self.epoch, int(index)


class OrderedSampler(ResumableSampler):
    """Every index once, dealt out to the ranks without padding, so that no image counts twice."""

    def __init__(self, indices: np.ndarray, rank: int = 0, world: int = 1) -> None:
        self.indices = indices[rank::world]

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Key]:
        for index in self.indices[self.first :]:
            yield 0, int(index)
