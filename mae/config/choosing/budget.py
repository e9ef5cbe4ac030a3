"""How long pretraining may take: in multiply-adds, which every machine counts alike, or in minutes, which are timed."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_MINUTES = 10
"""Of pretraining on two CPU cores, where neither epochs nor minutes are given."""
MULTIPLY_ADDS = 2.7e12
"""In a minute, on two cores: of training steps of a ViT-Tiny, 45 billion a second were measured."""
NARROW_SHARE = 0.6
"""Of that, what models reach whose matrices are narrower than ``WIDE``: 21 to 31 billion a second were measured."""
WIDE = 192
MOST_EPOCHS = 200
"""Of a default budget: the few images of a small folder are not looked at more often."""
VALIDATIONS = 20
"""Of a run, about."""
VALIDATION_SHARE = 0.4
"""Time of an image in validation, over that of one in a training step: a forward pass, and loading without crops."""
MEASURING_SHARE = 0.03
"""Of a run, for what is measured and drawn beside its steps."""
OFF = 0.15
"""How far, as a share, a run may end from its minutes without a word."""


def multiply_adds_of(minutes: float, width: int) -> float:
    """Return the multiply-adds of so many minutes on two cores, for an encoder of this width."""
    return minutes * MULTIPLY_ADDS * (1.0 if width >= WIDE else NARROW_SHARE)


@dataclass(frozen=True)
class Pace:
    """How fast a run is, where it was timed.

    Attributes:
        step: Seconds of an optimizer step, loading included.
        steps: Of an epoch.
        validation: Seconds of a validation.
        spent: Seconds that have passed before training.
    """

    step: float
    steps: int
    validation: float
    spent: float

    @property
    def epoch(self) -> float:
        """Seconds of the steps of an epoch."""
        return self.step * self.steps

    def epochs_in(self, minutes: float) -> int:
        """Return how many epochs, with what is measured beside, come nearest to so many minutes; one at least."""
        seconds = 60 * minutes * (1 - MEASURING_SHARE) - self.spent
        many, few = (seconds - VALIDATIONS * self.validation) / self.epoch, seconds / (self.epoch + self.validation)
        return max(1, round(many if many >= VALIDATIONS else min(few, VALIDATIONS)))

    def minutes_of(self, epochs: int) -> float:
        """Return how long so many epochs take in all."""
        trained = epochs * self.epoch + min(epochs, VALIDATIONS) * self.validation
        return (trained + self.spent) / (1 - MEASURING_SHARE) / 60

    def reason(self, minutes: float) -> str:
        """Say why it is so many epochs."""
        text = f"{self.step:.2g} s a step, {self.epoch / 60:.2g} minutes an epoch: minutes={minutes:g}"
        warning = self.warning(minutes)
        return text if warning is None else f"{text}; {warning}"

    def warning(self, minutes: float) -> str | None:
        """Say by how much whole epochs miss the minutes; None where they do not."""
        epochs = self.epochs_in(minutes)
        taken = self.minutes_of(epochs)
        if abs(taken - minutes) <= OFF * minutes:
            return None
        return f"{'one epoch takes' if epochs == 1 else f'{epochs} whole epochs take'} about {taken:.2g} minutes"
