"""How long pretraining takes, in which steps, and how fast it learns."""

from __future__ import annotations

import math
from typing import Any

from mae.config.choices import Choices, Machine, multiple, rounded
from mae.config.schema.roots import PretrainConfig

PAPER_BASE_LR = 1.5e-4


def choose_pretraining(choices: Choices[PretrainConfig], count: int, machine: Machine, shares: int = 1) -> None:
    """Choose batch size, epochs and learning rate for ``count`` training images; ``shares`` divides the batch."""
    config = choices.config
    most = (4096 if count >= 500_000 else 1024) if machine.accelerated else 256
    batch = choices.fill(
        "batch_size",
        multiple(_power_of_two(min(most, max(1, count // 8))), shares),
        f"at least 8 steps an epoch, {most} images at most {'here' if machine.accelerated else 'on a CPU'}",
    )
    count *= config.data.repeats  # images of an epoch
    if machine.accelerated:
        epochs, reason = rounded(100e6 / count, 400, 1600), "100 million images seen, within 400 to 1600 epochs"
    else:
        epochs, reason = (
            rounded(0.25e6 / count, 5, 400),
            "a quarter million images seen on a CPU, within 5 to 400 epochs",
        )
    epochs = choices.fill("epochs", epochs, reason)
    if batch >= 1024:
        choices.fill("optim.base_lr", PAPER_BASE_LR, "the paper's, for large batches")
    else:
        narrow = (config.model.get("width") or 192) < 192
        peak = 2e-3 if narrow else 1e-3
        rate = float(f"{peak * math.sqrt(256 / batch):.2g}")
        what = "narrow models take large steps" if narrow else "small batches take larger steps than the paper's"
        choices.fill(
            "optim.base_lr", rate, f"{what}: a rate of {peak:g} at 256 images, by the root of the batch elsewhere"
        )
    choose_pace(choices, epochs)


def choose_pace(choices: Choices[Any], epochs: int) -> None:
    """Choose how long the run warms up, and how often it is validated."""
    choices.fill("optim.warmup_epochs", round(epochs * 0.05, 3), "5% of the run, as the paper's 40 of 800 epochs")
    choices.fill("trainer.validate_every", validation_pace(epochs), "about 20 validations, the last at the end")


def validation_pace(epochs: int) -> int:
    """Return the epochs between validations: 14 to 28 of them in a run, evenly if that can be, else as near to 20 as can be.

    The last epoch is validated in any case, see ``LastValidation``.
    """
    counts = {every: math.ceil(epochs / every) for every in range(1, epochs // 14 + 1)}
    fitting = {every: count for every, count in counts.items() if 14 <= count <= 28}
    even = {every: count for every, count in fitting.items() if epochs % every == 0}
    return min(even or fitting or {1: epochs}, key=lambda every: abs(counts.get(every, 20) - 20))


def _power_of_two(number: int) -> int:
    return 1 << (number.bit_length() - 1)
