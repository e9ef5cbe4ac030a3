"""Intervals against figures from a printed table, and against the formula."""

from __future__ import annotations

import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mae.evaluation.intervals import Interval, mean_interval

# Student's t at 95%, two-sided, by degrees of freedom, as tables print it.
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


@given(st.lists(st.floats(0, 1), min_size=2, max_size=10))
def test_half_widths_are_students(values: list[float]) -> None:
    interval = mean_interval(values)
    expected = STUDENT[len(values) - 1] * statistics.stdev(values) / math.sqrt(len(values))
    assert interval.mean == pytest.approx(statistics.fmean(values))
    assert interval.half_width == pytest.approx(expected, rel=3e-4, abs=1e-12)
    assert interval.count == len(values)


def test_equal_values_leave_no_doubt() -> None:
    assert mean_interval([0.7, 0.7, 0.7]) == Interval(pytest.approx(0.7), 0.0, 3)


def test_intervals_of_three_hold_the_truth_nineteen_times_in_twenty() -> None:
    dice, held = random.Random(0), 0
    for _ in range(600):
        interval = mean_interval([dice.gauss(5, 3) for _ in range(3)])
        assert interval.half_width is not None
        held += abs(interval.mean - 5) <= interval.half_width
    assert 0.92 < held / 600 < 0.98


def test_one_value_has_no_interval_and_none_is_refused() -> None:
    assert mean_interval([0.4]) == Interval(0.4, None, 1)
    with pytest.raises(ValueError, match="one or more"):
        mean_interval([])


def test_text_is_a_percentage() -> None:
    assert str(Interval(0.8821, 0.0168, 5)) == "88.2% ± 1.7"
    assert str(Interval(0.8821, None, 1)) == "88.2%"
