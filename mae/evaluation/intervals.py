"""How sure a figure is: an accuracy on a number of images, and a mean of a few runs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats


@dataclass(frozen=True)
class Estimate:
    """An accuracy, or another share, of one run with its 95% interval; as text such as ``88.2% (84.5 to 91.2)``.

    Attributes:
        value: The share.
        low: Lower end of the interval.
        high: Upper end.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.1%} ({100 * self.low:.1f} to {100 * self.high:.1f})"


def accuracy_estimate(accuracy: float, images: int) -> Estimate:
    """Return an accuracy on so many images with Wilson's score interval (1927, JASA 22:209), which stays within 0 and 1.

    It tells what other images would give, not what another draw of labels or another seed would.

    Raises:
        ValueError: There are no images.
    """
    if images < 1:
        raise ValueError(f"an accuracy on {images} images has no interval: measure it on one or more")
    found = stats.binomtest(round(accuracy * images), images).proportion_ci(0.95, method="wilson")
    return Estimate(accuracy, float(found.low), float(found.high))


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
