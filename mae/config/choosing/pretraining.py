"""How long pretraining takes, in which steps, and how fast it learns."""

from __future__ import annotations

import math
from typing import Any

from mae.config.choices import Choices, Machine, multiple, rounded
from mae.config.choosing.budget import DEFAULT_MINUTES, MOST_EPOCHS, VALIDATIONS, WIDE, Pace, multiply_adds_of
from mae.config.schema.roots import PretrainConfig

PAPER_BASE_LR = 1.5e-4
FEWEST_STEPS = 4000
"""Of a run on a CPU, for which batches are made smaller: many small steps teach more in the same time than few large ones."""
SMALLEST_BATCH = 32
"""To which they are: smaller ones cost more time an image."""
LARGEST_BATCH = 256
"""On a CPU."""


def choose_batch(
    choices: Choices[PretrainConfig], count: int, machine: Machine, shares: int = 1, *, cost: float | None = None
) -> None:
    """Choose the batch size for ``count`` training images.

    Args:
        choices: Of the run, whose model is known.
        count: Training images.
        machine: This one.
        shares: Divide the batch.
        cost: Multiply-adds of a training step on one image, which a CPU's run follows from.
    """
    config = choices.config
    most = max(1, count // 8)
    if machine.accelerated:
        most = min(most, 4096 if count >= 500_000 else 1024)
        reason = f"at least 8 steps an epoch, {most} images at most here"
    else:
        images = (config.epochs or _affordable(config, count, cost)) * count * config.data.repeats
        most = min(most, LARGEST_BATCH, max(SMALLEST_BATCH, images // FEWEST_STEPS))
        reason = f"at least 8 steps an epoch, and {FEWEST_STEPS} in all while batches are of {SMALLEST_BATCH} or more"
    choices.fill("batch_size", multiple(_power_of_two(most), shares), reason)


def choose_length(
    choices: Choices[PretrainConfig],
    count: int,
    machine: Machine,
    *,
    cost: float | None = None,
    pace: Pace | None = None,
) -> None:
    """Choose epochs and learning rate, for the batch size of the config.

    Args:
        choices: Of the run.
        count: Training images.
        machine: This one.
        cost: As for ``choose_batch``.
        pace: How fast the run was when it was timed, where the config gives minutes.
    """
    config = choices.config
    seen = count * config.data.repeats  # images of an epoch
    if pace is not None:
        assert config.minutes is not None, "timed where minutes are given"
        (epochs, steps), reason = pace.plan(config.minutes), pace.reason(config.minutes)
        if steps < pace.steps:
            choices.fill(
                "epoch_steps",
                steps,
                f"all images are seen in {pace.steps} steps, too many for minutes={config.minutes:g}",
            )
    elif machine.accelerated:
        epochs, reason = rounded(100e6 / seen, 400, 1600), "100 million images seen, within 400 to 1600 epochs"
    else:
        epochs = _affordable(config, count, cost)
        reason = f"about {DEFAULT_MINUTES} minutes on two cores, and {MOST_EPOCHS} epochs at most; minutes=N takes N"
    epochs = choices.fill("epochs", epochs, reason)
    _choose_rate(choices)
    choose_pace(choices, epochs)


def _affordable(config: PretrainConfig, count: int, cost: float | None) -> int:
    """Return how many epochs the budget pays for on two cores, one at least."""
    assert cost is not None, "counted where there is no accelerator"
    budget = multiply_adds_of(config.minutes or DEFAULT_MINUTES, config.model.get("width") or WIDE)
    epochs = max(1, round(budget / cost / (count * config.data.repeats)))
    return epochs if config.minutes is not None else min(MOST_EPOCHS, epochs)


def _choose_rate(choices: Choices[PretrainConfig]) -> None:
    config = choices.config
    batch = config.batch_size
    if batch >= 1024:
        choices.fill("optim.base_lr", PAPER_BASE_LR, "the paper's, for large batches")
        return
    narrow = (config.model.get("width") or WIDE) < WIDE
    peak = 2e-3 if narrow else 1e-3
    rate = float(f"{peak * math.sqrt(256 / batch):.2g}")
    what = "narrow models take large steps" if narrow else "small batches take larger steps than the paper's"
    choices.fill("optim.base_lr", rate, f"{what}: a rate of {peak:g} at 256 images, by the root of the batch elsewhere")


def choose_pace(choices: Choices[Any], epochs: int, validations: int = VALIDATIONS) -> None:
    """Choose how long the run warms up, and how often it is validated."""
    choices.fill("optim.warmup_epochs", warmup(epochs), "5% of the run, as the paper's 40 of 800 epochs")
    reason = f"about {validations} validations, the last at the end"
    choices.fill("trainer.validate_every", validation_pace(epochs, validations), reason)


def warmup(epochs: int) -> float:
    """Return the epochs in which a run of so many warms up."""
    return round(epochs * 0.05, 3)


def validation_pace(epochs: int, wanted: int = VALIDATIONS) -> int:
    """Return the epochs between validations: 14 to 28 of them where 20 are wanted, evenly if that can be, else as near as can be.

    The last epoch is validated in any case, see ``LastValidation``.
    """
    least, most = math.ceil(0.7 * wanted), math.floor(1.4 * wanted)
    counts = {every: math.ceil(epochs / every) for every in range(1, epochs // least + 1)}
    fitting = {every: count for every, count in counts.items() if least <= count <= most}
    even = {every: count for every, count in fitting.items() if epochs % every == 0}
    return min(even or fitting or {1: epochs}, key=lambda every: abs(counts.get(every, wanted) - wanted))


def _power_of_two(number: int) -> int:
    return 1 << (number.bit_length() - 1)
