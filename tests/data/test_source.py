"""A part of a source, and a few images of it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mae.data.source import Subset, evenly_spaced
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
