"""The order of images on any number of ranks."""

from __future__ import annotations

import numpy as np
import pytest

from mae.data.loading.order import OrderedSampler, ShuffledSampler


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_an_epoch_without_overlap(world: int) -> None:
    ranks = [ShuffledSampler(23, 4, seed=5, rank=rank, world=world) for rank in range(world)]
    parts = []
    for sampler in ranks:
        sampler.set_epoch(2)
        parts.append([index for _, index in sampler])
    assert len({len(part) for part in parts}) == 1
    together = [index for part in parts for index in part]
    assert len(together) == len(set(together)) == 20


@pytest.mark.parametrize("world", [2, 4])
def test_each_step_sees_the_same_images_on_any_number_of_ranks(world: int) -> None:
    # batch_size means the same everywhere: the k-th step of an epoch is made of the same images.
    def steps(world: int) -> list[set[int]]:
        per_rank = 4 // world
        parts = [[index for _, index in ShuffledSampler(23, 4, 5, rank, world)] for rank in range(world)]
        return [{i for part in parts for i in part[k * per_rank : (k + 1) * per_rank]} for k in range(5)]

    assert steps(world) == steps(1)


def test_evaluation_shards_hold_every_image_exactly_once() -> None:
    # PyTorch's DistributedSampler repeats images to even the ranks out, and so counts some of them twice.
    parts = [list(OrderedSampler(np.arange(7), rank, 3)) for rank in range(3)]
    assert [len(part) for part in parts] == [3, 2, 2]
    assert sorted(index for part in parts for _, index in part) == list(range(7))
