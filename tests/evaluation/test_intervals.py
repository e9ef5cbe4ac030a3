"""Intervals against figures from a printed table."""

from __future__ import annotations

import random

import pytest

from mae.evaluation.intervals import Interval, mean_interval


@pytest.mark.parametrize(
    ("values", "mean", "half_width"),
    [
        # Student's t at 95%, two-sided: 12.706 for 1 degree of freedom, 4.303 for 2, 2.776 for 4.
        ([0.0, 2.0], 1.0, 12.706 * 2**0.5 / 2**0.5),
        ([1.0, 2.0, 3.0], 2.0, 4.303 * 1 / 3**0.5),
        ([1.0, 2.0, 3.0, 4.0, 5.0], 3.0, 2.776 * 2.5**0.5 / 5**0.5),
        ([0.7, 0.7, 0.7], 0.7, 0.0),
    ],
)
def test_half_widths_are_students(values: list[float], mean: float, half_width: float) -> None:
    interval = mean_interval(values)
    assert interval.mean == pytest.approx(mean)
    assert interval.half_width == pytest.approx(half_width, rel=2e-4, abs=1e-12)
    assert interval.count == len(values)


def test_intervals_of_three_hold_the_truth_nineteen_times_in_twenty() -> None:
    dice, held = random.Random(0), 0
    for _ in range(2000):
        interval = mean_interval([dice.gauss(5, 3) for _ in range(3)])
        assert interval.half_width is not None
        held += abs(interval.mean - 5) <= interval.half_width
    assert 0.93 < held / 2000 < 0.97


def test_one_value_has_no_interval() -> None:
    assert mean_interval([0.4]) == Interval(0.4, None, 1)


def test_none_is_refused() -> None:
    with pytest.raises(ValueError, match="one or more"):
        mean_interval([])


def test_text_is_a_percentage() -> None:
    assert str(Interval(0.8821, 0.0168, 5)) == "88.2% ± 1.7"
    assert str(Interval(0.8821, None, 1)) == "88.2%"
