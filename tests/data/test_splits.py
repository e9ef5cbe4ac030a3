"""How data are cut into splits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mae.data.splits import hold_out, with_validation
from tests.data.drawing import counted


@given(
    st.one_of(st.none(), st.lists(st.integers(1, 60), min_size=1, max_size=6)), st.integers(0, 60), st.integers(0, 9)
)
def test_holding_out_is_a_stratified_partition_and_the_same_each_time(
    counts: list[int] | None, count: int, seed: int
) -> None:
    data = counted(counts, length=70)
    count = min(count, len(data))
    kept, held = hold_out(data, count, seed)
    assert sorted([*kept, *held]) == list(range(len(data)))
    assert len(held) == count
    for part, again in zip((kept, held), hold_out(data, count, seed), strict=True):
        assert np.array_equal(part, np.sort(part))
        assert np.array_equal(part, again)
    if counts is not None:
        # Every class gives its share, to an image.
        given_by = np.bincount(data.labels[held], minlength=len(counts))
        assert np.abs(given_by - np.array(counts) * count / len(data)).max() < 2


def test_another_seed_holds_out_others() -> None:
    assert not np.array_equal(hold_out(counted((50, 50)), 10, 0)[1], hold_out(counted((50, 50)), 10, 1)[1])


def test_holding_out_leaves_the_global_generators_alone() -> None:
    # The split would otherwise move with the seed of a run, or move it.
    np.random.seed(1)  # noqa: NPY002
    first = hold_out(counted((30, 30)), 6)[1]
    np.random.seed(2)  # noqa: NPY002
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    assert np.array_equal(first, hold_out(counted((30, 30)), 6)[1])
    assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002


def test_held_out_images_are_no_block_of_the_files() -> None:
    # Files come sorted by name, often by class or by day: the last tenth of them would be another kind of data.
    held = hold_out(counted(None, 1000), 100)[1]
    assert 400 < held.mean() < 600
    assert len(np.unique(held // 100)) == 10


def test_a_tenth_is_held_out_unless_the_data_bring_their_own() -> None:
    data, own = counted((50, 50)), counted((3, 3))
    splits = with_validation(data, None, None)
    assert (len(splits.train), len(splits.val)) == (90, 10)
    splits = with_validation(data, own, None)
    assert len(splits.train) == 100
    assert splits.val is own


def test_two_images_suffice_and_one_does_not() -> None:
    splits = with_validation(counted(None, 2), None, None)
    assert (len(splits.train), len(splits.val)) == (1, 1)
    with pytest.raises(ValueError, match="1 image is too few"):
        with_validation(counted(None, 1), None, None)
