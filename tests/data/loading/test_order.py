"""The order of images on any number of ranks."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mae.data.loading.order import OrderedSampler, ShuffledSampler

LENGTHS, WORLDS = st.integers(1, 60), st.sampled_from([1, 2, 3, 4, 8])


@given(LENGTHS, WORLDS, st.integers(1, 4), st.integers(0, 9), st.integers(0, 3))
def test_ranks_share_each_step_of_an_epoch(length: int, world: int, per_rank: int, seed: int, epoch: int) -> None:
    # batch_size means the same everywhere: the k-th step of an epoch is made of the same images on any number of ranks.
    batch = world * per_rank
    ranks = [ShuffledSampler(length, batch, seed, rank, world) for rank in range(world)]
    alone = ShuffledSampler(length, batch, seed)
    for sampler in (*ranks, alone):
        sampler.set_epoch(epoch)
    parts = [list(sampler) for sampler in ranks]
    assert [len(part) for part in parts] == [len(sampler) for sampler in ranks] == [length // batch * per_rank] * world
    whole = list(alone)
    assert len(set(whole)) == len(whole) == length // batch * batch
    for step in range(length // batch):
        together = [key for part in parts for key in part[step * per_rank : (step + 1) * per_rank]]
        assert sorted(together) == sorted(whole[step * batch : (step + 1) * batch])
        assert {key[0] for key in together} == {epoch}


@given(LENGTHS, WORLDS)
def test_evaluation_shards_hold_every_image_exactly_once(length: int, world: int) -> None:
    # PyTorch's DistributedSampler repeats images to even the ranks out, and so counts some of them twice.
    parts = [list(OrderedSampler(np.arange(length), rank, world)) for rank in range(world)]
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert sorted(index for part in parts for _, index in part) == list(range(length))


@given(LENGTHS, st.integers(0, 60))
def test_an_order_can_be_entered_in_the_middle(length: int, first: int) -> None:
    for sampler in (ShuffledSampler(length, 1, 0), OrderedSampler(np.arange(length))):
        whole = list(sampler)
        sampler.first = first
        assert list(sampler) == whole[first:]
