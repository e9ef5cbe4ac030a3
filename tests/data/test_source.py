"""A part of a source, and a few images of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mae.data.source import Subset, drawn, evenly_spaced
from tests.data.drawing import counted


def test_a_subset_keeps_images_labels_and_names_together() -> None:
    data = counted((5, 5))
    chosen = [7, 0, 3]
    subset = Subset(data, chosen)
    assert [int(subset.image(i)[0, 0, 0]) for i in range(3)] == chosen
    assert subset.labels.tolist() == data.labels[chosen].tolist()
    assert [subset.name(i) for i in range(3)] == [data.name(i) for i in chosen]


@given(st.integers(1, 2000), st.integers(1, 2000))
def test_spread_indices_are_distinct_sorted_and_reach_both_ends(total: int, wanted: int) -> None:
    indices = evenly_spaced(total, wanted)
    assert len(indices) == min(total, wanted)
    steps = np.diff(indices)
    assert (steps > 0).all()
    assert len(steps) == 0 or steps.max() - steps.min() <= 1
    assert indices[0] == 0
    assert indices[-1] == (total - 1 if wanted > 1 else 0)


@pytest.mark.parametrize(("total", "most"), [(0, 5), (5, 5), (3, 10), (1000, 40)])
def test_indices_are_drawn_in_order_each_once_and_alike_in_every_run(total: int, most: int) -> None:
    indices = drawn(total, most)
    assert len(indices) == min(total, most)
    assert np.array_equal(indices, np.unique(indices))
    assert np.array_equal(indices, drawn(total, most))
    assert all(0 <= index < total for index in indices)
