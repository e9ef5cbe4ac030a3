"""How long pretraining may take: in multiply-adds, which every machine counts alike, or in minutes, which are timed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

DEFAULT_MINUTES = 10
"""Of pretraining on two CPU cores, where neither epochs nor minutes are given."""
MULTIPLY_ADDS = 4.2e12
"""In a minute, on two cores: of training steps of a ViT-Tiny, 70 billion a second; 72 to 79 were measured."""
NARROW_SHARE = 0.7
"""Of that, what models reach whose matrices are narrower than ``WIDE``: 50 to 59 billion a second were measured."""
WIDE = 192
MOST_EPOCHS = 200
"""Of a default budget: the few images of a small folder are not looked at more often."""
VALIDATIONS = 20
"""Of a run, about."""
VALIDATION_SHARE = 0.4
"""Time of an image in validation, over that of one in a training step: a forward pass, and loading without crops."""
MEASURING_SHARE = 0.03
"""Of a run, for what is measured and drawn beside its steps."""
NEAR = 0.05
"""How far, as a share, whole epochs may end from the minutes before they are cut into parts."""
OFF = 0.15
"""How far a run may end from its minutes without a word."""
PARTS = 10
"""Into which a run is cut where whole epochs are too coarse: it is validated after each."""


def multiply_adds_of(minutes: float, width: int) -> float:
    """Return the multiply-adds of so many minutes on two cores, for an encoder of this width."""
    return minutes * MULTIPLY_ADDS * (1.0 if width >= WIDE else NARROW_SHARE)


class Plan(NamedTuple):
    """A run of so many epochs, each of so many optimizer steps."""

    epochs: int
    steps: int


@dataclass(frozen=True)
class Pace:
    """How fast a run is, where it was timed.

    Attributes:
        step: Seconds of an optimizer step, loading included.
        steps: Until all images were seen.
        validation: Seconds of a validation.
        spent: Seconds that have passed before training.
    """

    step: float
    steps: int
    validation: float
    spent: float

    @property
    def epoch(self) -> float:
        """Seconds of the steps until all images were seen."""
        return self.step * self.steps

    def plan(self, minutes: float) -> Plan:
        """Return the run that comes nearest to so many minutes, with what is measured beside."""
        seconds = 60 * minutes * (1 - MEASURING_SHARE) - self.spent
        many, few = (seconds - VALIDATIONS * self.validation) / self.epoch, seconds / (self.epoch + self.validation)
        whole = Plan(max(1, round(many if many >= VALIDATIONS else min(few, VALIDATIONS))), self.steps)
        if abs(self.minutes_of(whole) - minutes) <= NEAR * minutes:
            return whole
        parts = max(1, min(PARTS, int(0.1 * seconds / max(self.validation, 1e-9))))
        steps = (seconds - parts * self.validation) / self.step
        parts = max(parts, math.ceil(steps / self.steps))
        return Plan(parts, min(self.steps, max(1, round(steps / parts))))

    def minutes_of(self, plan: Plan) -> float:
        """Return how long a run takes in all."""
        trained = plan.epochs * plan.steps * self.step + min(plan.epochs, VALIDATIONS) * self.validation
        return (trained + self.spent) / (1 - MEASURING_SHARE) / 60

    def reason(self, minutes: float) -> str:
        """Say why it is this run."""
        text = f"{self.step:.2g} s a step, {self.epoch / 60:.2g} minutes to see all images: minutes={minutes:g}"
        warning = self.warning(minutes)
        return text if warning is None else f"{text}; {warning}"

    def warning(self, minutes: float) -> str | None:
        """Say that the run cannot take so many minutes; None where it can."""
        plan = self.plan(minutes)
        taken = self.minutes_of(plan)
        if abs(taken - minutes) <= OFF * minutes:
            return None
        return f"{plan.epochs * plan.steps} steps, with what is measured, take about {taken:.2g} minutes"
