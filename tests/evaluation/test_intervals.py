"""Intervals against figures from a printed table, and against the formula."""

from __future__ import annotations

import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mae.evaluation.intervals import Estimate, Interval, accuracy_estimate, mean_interval

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


@given(st.integers(0, 60), st.integers(1, 60))
def test_an_accuracy_is_at_the_ends_of_its_interval_by_its_score_test(right: int, images: int) -> None:
    right = min(right, images)
    found = accuracy_estimate(right / images, images)
    assert 0 <= found.low <= found.value <= found.high <= 1
    for end in (found.low, found.high):
        # Wilson's ends solve (p - end)^2 = z^2 end (1 - end) / n.
        assert (found.value - end) ** 2 == pytest.approx(1.959964**2 * end * (1 - end) / images, abs=1e-6)
    assert found.high - found.low > 0


def test_an_accuracy_with_its_interval_as_text() -> None:
    assert str(Estimate(0.8821, 0.845, 0.912)) == "88.2% (84.5 to 91.2)"
    assert str(accuracy_estimate(0.275, 240)) == "27.5% (22.2 to 33.5)"
    assert str(accuracy_estimate(1.0, 3)) == "100.0% (43.9 to 100.0)"
    with pytest.raises(ValueError, match="on 0 images"):
        accuracy_estimate(0.5, 0)
