"""What should worry a person while a run is on: numbers in, a sentence with its remedy out, or None."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mae.evaluation.paired import Difference
from mae.objectives.objective import Trivial

FAIR_PART = 0.25
"""Share of a run after which a loss that has not moved is no slow start: warm-up, 5% by default, is long over."""
HALF = 0.5
"""Share of a run before which features say little: early in training they shrink, and fall below random ones, as a rule."""
FAIR_STEPS = 100
"""Steps before which no run has shown anything, however short it is."""
ENOUGH_STEPS = 1000
"""Steps in all below which a pretraining is too short, whatever its epochs.

On the digits, linear probes after 40, 160 and 600 steps were no better than on random weights, and after 1,900 they were. How the
loss ends tells nothing: the schedule flattens it, and the last fifth of 160, 600 and 1,900 steps gave 0, 2 and 2% of its fall.
"""
NEAR = 0.98
"""Share of the trivial loss above which a loss counts as no better."""
STEPS_TIMED, SECONDS_TIMED = 100, 20.0
"""A share of the time is believed after so many steps and seconds: worker processes start slowly."""
NOT_A_NUMBER = "The loss is not a number"
TOO_SHORT = "Too short a pretraining"
BELOW_UNTRAINED = "The features are worse than those of random weights"
DIVERGED_REMEDY = "Lower optim.base_lr, or set optim.clip_norm=1."


@dataclass(frozen=True)
class Moment:
    """A step of a run of ``total`` steps."""

    step: int
    total: int

    def __str__(self) -> str:
        return f"{self.step / self.total:.0%} of the run"

    def past(self, part: float) -> bool:
        """Whether this part of the run is over, and enough steps for a judgement."""
        return self.step >= max(part * self.total, FAIR_STEPS)


def not_a_number(step: int) -> str:
    """Say that training diverged; the run ends with it."""
    return f"{NOT_A_NUMBER} after step {step:,}: training diverged and was stopped. {DIVERGED_REMEDY}"


def learns_nothing(loss: float, trivial: Trivial, now: Moment) -> str | None:
    """Judge a validation loss by the objective's trivial one; ``now`` is when it was measured."""
    if not now.past(FAIR_PART) or not loss > NEAR * trivial.loss:
        return None
    return (
        f"The loss stays near {trivial.loss:.2f}, which {trivial.by} would score: nothing is being learned after "
        f"{now}. Raise optim.base_lr, or train longer."
    )


def rank_collapsed(rank: float, possible: int, now: Moment) -> str | None:
    """Judge RankMe; ``possible`` is the most it can be, min(N, D), and a handful of images says nothing."""
    if not now.past(HALF) or rank >= 2 or possible < 10:
        return None
    return (
        f"The rank has collapsed: the features of all images lie along one direction (RankMe {rank:.1f} of {possible}) after "
        f"{now}. Lower optim.base_lr, or lengthen optim.warmup_epochs."
    )


def waits_for_data(share: float, steps: int, seconds: float, workers: int) -> str | None:
    """Judge the share of the training time spent waiting for batches, over some steps and seconds."""
    if share <= 0.5 or steps < STEPS_TIMED or seconds < SECONDS_TIMED:
        return None
    return (
        f"Waiting for data {share:.0%} of the time: the model could train more than twice as fast. Raise data.num_workers, "
        f"now {workers}, or store smaller images."
    )


def warmup_too_long(warmup: int, total: int) -> str | None:
    """Judge the schedule, in steps."""
    if warmup < total:
        return None
    return (
        f"Warm-up is longer than the run, {warmup:,} steps of {total:,}: the learning rate never reaches its peak. Lower "
        f"optim.warmup_epochs, or raise epochs."
    )


def too_short(total: int) -> str | None:
    """Judge the length of a run, in steps, before the first of them."""
    if total >= ENOUGH_STEPS:
        return None
    return (
        f"{TOO_SHORT}: {total:,} steps in all, where {ENOUGH_STEPS:,} are the least from which features gain much. Raise epochs "
        f"{math.ceil(ENOUGH_STEPS / total)} times, or lower batch_size, which makes more steps of the same images."
    )


def below_untrained(measure: str, difference: Difference, now: Moment) -> str | None:
    """Judge an encoder by the measure that decides, and its difference from the same encoder before training."""
    if not now.past(HALF) or difference.word != "hurt":
        return None
    return (
        f"{BELOW_UNTRAINED} after {now}, by {measure}: {difference}. Raise epochs; if a longer run does no better, change "
        f"optim.base_lr."
    )
