"""How sure a difference of two accuracies is, where both are of the same images."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from scipy import optimize, stats
from torch import Tensor

from mae.evaluation.intervals import Estimate

Word = Literal["helped", "no difference", "hurt"]

Z = float(stats.norm.ppf(0.975))
"""Deviations of a normal distribution on each side of a 95% interval."""
RESAMPLES = 2000
CLOSE = 1e-9
"""Where the search for a bound begins, beside the difference itself, at which the deviation may be zero."""


@dataclass(frozen=True)
class Difference:
    """A difference of two figures on the same images, with its 95% interval; text such as ``+4.1 points (+1.8 to +6.4)``.

    Attributes:
        mean: Ours less the other's; .01 is a point.
        low: Lower end of the interval.
        high: Upper end.
        images: How many images.
    """

    mean: float
    low: float
    high: float
    images: int

    @property
    def word(self) -> Word:
        """What the interval decides: a tie unless it is on one side of zero."""
        if self.low > 0:
            return "helped"
        return "hurt" if self.high < 0 else "no difference"

    @property
    def plain(self) -> list[float]:
        """Mean, lower and upper end, as results.json keeps them."""
        return [self.mean, self.low, self.high]

    @classmethod
    def read(cls, plain: Sequence[float], images: int) -> Difference:
        """Take what ``plain`` gave."""
        mean, low, high = plain
        return cls(mean, low, high, images)

    def __neg__(self) -> Difference:
        return Difference(-self.mean, -self.high, -self.low, self.images)

    def __str__(self) -> str:
        mean, low, high = (f"{100 * value:+.1f}" for value in self.plain)
        return f"{mean} points ({low} to {high})"


def paired_difference(ours: Tensor, other: Tensor) -> Difference:
    """Return by how much one accuracy is above another on the same images, with Tango's score interval.

    Only the images on which the two disagree tell; with none of them the interval is still no point, and narrows with the
    number of images. It excludes zero just where McNemar's test, (b - c)^2 / (b + c) without a correction, has p < 0.05 (Tango
    1998, Statistics in Medicine 17:891; compared in Fagerland et al. 2014, Statistics in Medicine 33:2850). It covers the
    choice of the test images; what another draw of labels or another seed would change is not in it, see ``paired_runs``.

    Args:
        ours: (N,) bool, whether each image is right.
        other: (N,) bool, the same of the same images.

    Raises:
        ValueError: There are no images, or the two are of different numbers of them.
    """
    if ours.shape != other.shape or ours.ndim != 1 or not len(ours):
        raise ValueError(
            f"{tuple(ours.shape)} and {tuple(other.shape)} cannot be paired: give one bool for each of the same images"
        )
    ours, other, images = ours.bool(), other.bool(), len(ours)
    gained, lost = int((ours & ~other).sum()), int((other & ~ours).sum())
    return Difference((gained - lost) / images, -_upper(lost, gained, images), _upper(gained, lost, images), images)


def clearly_better(ours: Tensor, other: Tensor) -> bool:
    """Whether one accuracy is above another on the same images by more than a standard error, as the score interval has it.

    Args:
        ours: (N,) bool, which images are right.
        other: (N,) bool.
    """
    gain = paired_difference(ours, other)
    return gain.mean > (gain.high - gain.low) / (2 * Z)


def _upper(gained: int, lost: int, images: int) -> float:
    """Return the difference at which Tango's score statistic is -Z."""
    n, mean = images, (gained - lost) / images
    if gained == n:
        return 1.0

    def above(difference: float) -> float:
        # The share that only the other has right, at its likeliest given the difference.
        a, b, c = 2 * n, (2 * n - gained + lost) * difference - gained - lost, -lost * difference * (1 - difference)
        share = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
        variance = n * (2 * share + difference * (1 - difference))
        return gained - lost - n * difference + Z * math.sqrt(max(variance, 0.0))

    return float(optimize.brentq(above, mean + CLOSE, 1.0))


def paired_runs(ours: Tensor, other: Tensor) -> Difference:
    """Return the mean difference of accuracy over pairs of runs on the same images: seeds, or draws of the labels.

    Its interval covers both another draw and other images, by an analysis of variance of the differences over draws and images
    (Obuchowski & Rockette 1995; degrees of freedom of Hillis 2007, Statistics in Medicine 26:596). A single pair has that of
    ``paired_difference``, which covers the images alone.

    Args:
        ours: (R, N) bool, whether run r has image n right.
        other: (R, N) bool, of the runs of the same draws.

    Raises:
        ValueError: There are no images, or the two have different shapes.
    """
    if ours.shape != other.shape or ours.ndim != 2 or not ours.numel():
        raise ValueError(
            f"{tuple(ours.shape)} and {tuple(other.shape)} cannot be paired: give runs x images of the same runs and images"
        )
    runs, images = ours.shape
    if runs == 1:
        return paired_difference(ours[0], other[0])
    values = ours.double() - other.double()
    mean, by_run, by_image = values.mean(), values.mean(dim=1), values.mean(dim=0)
    of_runs = images * float((by_run - mean).square().sum()) / (runs - 1)
    if images == 1:
        of_images = 0.0
    else:
        rest = values - by_run[:, None] - by_image[None, :] + mean
        left = float(rest.square().sum()) / ((runs - 1) * (images - 1))
        of_runs = max(of_runs, left)  # runs that happen to agree in their means alone are not certain
        of_images = max(runs * float((by_image - mean).square().sum()) / (images - 1) - left, 0.0)
    variance = of_runs + of_images
    freedom = (runs - 1) * (variance / of_runs) ** 2 if of_runs else math.inf
    half = float(stats.t.ppf(0.975, freedom)) * math.sqrt(variance / (runs * images))
    centre = float(mean)
    return Difference(centre, max(centre - half, -1.0), min(centre + half, 1.0), images)


def resampled(counts: Tensor, figure: Callable[[Tensor], Tensor], span: tuple[float, float] = (0.0, 1.0)) -> Estimate:
    """Return a figure that is no mean over images, such as a mean IoU, with a bootstrap interval over the images.

    Images are drawn with replacement 2,000 times, the same each time that it is asked; the percentiles are widened for few
    images (Hesterberg 2015, The American Statistician 69:371).

    Args:
        counts: (N, V), what each image adds to sums from which the figure follows.
        figure: Sums (R, V) to R figures.
        span: All that the figure can be, which is what a single image tells.

    Raises:
        ValueError: There are no images.
    """
    images = len(counts)
    if not images:
        raise ValueError("no images: a figure needs one or more")
    counts = counts.double()
    value = float(figure(counts.sum(dim=0, keepdim=True)))
    if images == 1:
        return Estimate(value, *span)
    drawn = torch.randint(images, (RESAMPLES, images), generator=torch.Generator().manual_seed(0))
    times = torch.zeros(RESAMPLES, images, dtype=torch.float64)
    times.scatter_add_(1, drawn, torch.ones_like(times))
    tail = float(stats.norm.cdf(math.sqrt(images / (images - 1)) * stats.t.ppf(0.025, images - 1)))
    ends = torch.tensor([tail, 1 - tail], dtype=torch.float64)
    low, high = torch.nanquantile(figure(times @ counts), ends).tolist()
    return Estimate(value, low, high)


def resampled_difference(ours: Tensor, other: Tensor, figure: Callable[[Tensor], Tensor]) -> Difference:
    """Return by how much a figure of one model is above that of another on the same images, see ``resampled``.

    Args:
        ours: (N, V) counts.
        other: (N, V), of the same images.
        figure: As there; from 0 to 1.

    Raises:
        ValueError: There are no images, or the two are of different numbers of them.
    """
    if ours.shape != other.shape:
        raise ValueError(f"counts {tuple(ours.shape)} and {tuple(other.shape)} cannot be paired: give the same images")
    values = ours.shape[1]

    def gap(sums: Tensor) -> Tensor:
        return figure(sums[:, :values]) - figure(sums[:, values:])

    found = resampled(torch.cat([ours, other], dim=1), gap, span=(-1.0, 1.0))
    return Difference(found.value, found.low, found.high, len(ours))


def decisive(differences: Mapping[str, Difference]) -> str:
    """Return the measure that decides, by its name: the first that is no tie, and the first of all where all are.

    The best measure stands first: another decides only where it is silent, and only what its mean leans to as well.
    """
    first, best = next(iter(differences.items()))
    if best.word != "no difference":
        return first
    leaning = (name for name, one in differences.items() if one.word != "no difference" and one.mean * best.mean > 0)
    return next(leaning, first)
