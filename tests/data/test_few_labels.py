"""A draw of a few labelled images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mae.data.few_labels import few_labels
from tests.data.drawing import counted

LABELS = counted((30, 20, 5)).labels
NAMES = ("a", "b", "c")


COUNTS = st.lists(st.integers(1, 40), min_size=1, max_size=6)


@given(COUNTS, st.integers(0, 9), st.data())
def test_each_class_gives_as_many_labels_as_asked_for(counts: list[int], seed: int, data: st.DataObject) -> None:
    labels, per_class = counted(counts).labels, data.draw(st.integers(1, min(counts)))
    chosen = few_labels(labels, "abcdef"[: len(counts)], seed, per_class, None)
    assert np.bincount(labels[chosen]).tolist() == [per_class] * len(counts)
    assert (np.diff(chosen) > 0).all()


@given(COUNTS, st.integers(0, 9), st.floats(0.001, 1))
def test_each_class_gives_its_share_and_one_at_least(counts: list[int], seed: int, fraction: float) -> None:
    labels = counted(counts).labels
    chosen = few_labels(labels, "abcdef"[: len(counts)], seed, None, fraction)
    assert np.bincount(labels[chosen]).tolist() == [max(1, round(fraction * count)) for count in counts]
    assert (np.diff(chosen) > 0).all()


def test_the_draw_is_a_function_of_the_seed() -> None:
    draws = [few_labels(LABELS, NAMES, seed, 3, None) for seed in (0, 0, 1)]
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


def test_all_labels_are_used_where_nothing_is_asked() -> None:
    assert np.array_equal(few_labels(LABELS, NAMES, 0, None, None), np.arange(55))


@pytest.mark.parametrize(
    ("per_class", "fraction", "message"),
    [
        (6, None, r"class 'c' has 5 .* fewer than the 6 .*labels_per_class=5"),
        (1, 0.5, "labels_per_class=1 and label_fraction=0.5"),
        (None, 0.0, r"label_fraction=0.0.*\(0, 1\]"),
        (None, 1.5, r"label_fraction=1.5.*\(0, 1\]"),
        (0, None, "labels_per_class=0 leaves no label"),
    ],
)
def test_an_impossible_draw_says_what_would_be_right(
    per_class: int | None, fraction: float | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        few_labels(LABELS, NAMES, 0, per_class, fraction)


def test_the_advice_is_what_every_class_can_give() -> None:
    # Class a fails first; the number that is offered must not fail at class c in turn.
    with pytest.raises(ValueError, match="labels_per_class=5 is the most"):
        few_labels(LABELS, NAMES, 0, 40, None)
