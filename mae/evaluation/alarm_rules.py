"""What should worry a person while a run is on: numbers in, a sentence with its remedy out, or None."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FAIR_PART = 0.25
"""Share of a run after which a loss that has not moved is no slow start: warm-up, 5% by default, is long over."""
HALF = 0.5
"""Share of a run before which features say little: early in training they shrink, and fall below random ones, as a rule."""
FAIR_STEPS = 100
"""Steps before which no run has shown anything, however short it is."""
NEAR = 0.98
"""Share of the trivial loss above which a loss counts as no better."""
ABOUT_EQUAL = 0.01
"""Accuracies that differ by less are taken for equal."""
STEPS_TIMED, SECONDS_TIMED = 100, 20.0
"""A share of the time is believed after so many steps and seconds: worker processes start slowly."""
NOT_A_NUMBER = "The loss is not a number"


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
    return (
        f"{NOT_A_NUMBER} after step {step:,}: training diverged and was stopped. Lower optim.base_lr, or set "
        f"optim.clip_norm=1."
    )


def trivial_loss(figures: Mapping[str, Any], normalized: bool) -> tuple[float, str] | None:
    """Return what is scored without learning, and by what; None where that is not known.

    Args:
        figures: ``label_entropy``, where colours are predicted, or ``patch_mean_loss``: about 1, less where patches are flat.
        normalized: Whether normalised pixels are predicted.
    """
    if "label_entropy" in figures:
        return figures["label_entropy"], "knowing how frequent each colour is"
    return (figures.get("patch_mean_loss", 1.0), "predicting each patch's mean") if normalized else None


def learns_nothing(loss: float, trivial: tuple[float, str], now: Moment) -> str | None:
    """Judge a validation loss by the trivial one, see ``trivial_loss``; ``now`` is when it was measured."""
    score, by = trivial
    if not now.past(FAIR_PART) or not loss > NEAR * score:
        return None
    return (
        f"The loss stays near {score:.2f}, which {by} would score: nothing is being learned after {now}. Raise optim.base_lr, or "
        f"train longer."
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


def below_untrained(accuracy: float, untrained: float, now: Moment) -> str | None:
    """Judge the kNN accuracy of an encoder by that of the same one before training."""
    if not now.past(HALF) or accuracy >= untrained - ABOUT_EQUAL:
        return None
    return (
        f"The kNN probe is below the random encoder: {accuracy:.1%} after {now}, {untrained:.1%} before "
        f"training. Raise epochs; if a longer run does no better, change optim.base_lr."
    )


def mostly_flat(share: float) -> str | None:
    """Judge the share of patches that are nearly one colour."""
    if share <= 0.5:
        return None
    return (
        f"{share:.0%} of the patches are nearly one colour: there is nothing to reconstruct in them, and their normalised "
        f"pixels are noise or zero. Crop the images to what they show, raise model.patch_size, or set objective.normalize=false."
    )
