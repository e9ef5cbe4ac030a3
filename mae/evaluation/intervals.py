"""How sure a mean of a few runs is."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats


@dataclass(frozen=True)
class Interval:
    """A mean and its uncertainty; as text a percentage, such as ``88.2% ± 1.7``.

    Attributes:
        mean: Of the values.
        half_width: Half of the 95% interval of the mean; None where one value says nothing about it.
        count: How many values.
    """

    mean: float
    half_width: float | None
    count: int

    def __str__(self) -> str:
        return f"{self.mean:.1%}" + ("" if self.half_width is None else f" ± {100 * self.half_width:.1f}")


def mean_interval(values: Sequence[float]) -> Interval:
    """Return the mean of a few runs with the half width of its 95% interval (Student 1908).

    The interval takes the values as independent and about normal. Draws of labels from one data set share its images, so it
    tells how much the draw matters, not what another data set would give.

    Raises:
        ValueError: There are no values.
    """
    if not values:
        raise ValueError("no values: a mean needs one or more")
    mean, count = statistics.fmean(values), len(values)
    if count == 1:
        return Interval(mean, None, 1)
    error = statistics.stdev(values) / math.sqrt(count)
    half = stats.t.interval(0.95, count - 1, scale=error)[1] if error else 0.0  # of equal values it is no number
    return Interval(mean, float(half), count)
