"""How long a run is: so many multiply-adds by default, or as many epochs as come nearest to the minutes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mae.config.choices import Machine
from mae.config.choosing.budget import DEFAULT_MINUTES, MOST_EPOCHS, MULTIPLY_ADDS, Pace
from mae.config.choosing.pretraining import FEWEST_STEPS, SMALLEST_BATCH, choose_batch, choose_length
from tests.config.choosing.composed import choices_of

LAPTOP = Machine(accelerated=False, cores=2)
SECONDS = st.floats(0.01, 30)


@given(SECONDS, st.integers(1, 500), st.floats(0, 5), st.floats(0, 20), st.floats(0.1, 600))
def test_a_timed_run_takes_its_minutes_wherever_it_can(
    step: float, steps: int, validation: float, spent: float, minutes: float
) -> None:
    pace = Pace(step, steps, validation, spent)
    plan = pace.plan(minutes)
    assert plan.epochs >= 1 and 1 <= plan.steps <= steps
    taken = abs(pace.minutes_of(plan) - minutes)
    assert (pace.warning(minutes) is None) == (taken <= 0.15 * minutes)
    if 60 * minutes > 2 * spent + 50 * (step + validation):
        assert taken <= 0.15 * minutes


def test_whole_epochs_are_taken_where_they_come_near() -> None:
    pace = Pace(step=2.0, steps=60, validation=1.0, spent=0.0)
    assert pace.plan(100) == (48, 60)
    assert pace.plan(3) == (10, 8)  # an epoch and a half, nearly


def test_minutes_that_hold_no_step_are_said() -> None:
    pace = Pace(step=20.0, steps=600, validation=10.0, spent=5.0)
    assert pace.plan(0.1) == (1, 1)
    assert pace.warning(0.1) == "1 steps, with what is measured, take about 0.6 minutes"


@given(st.floats(1e6, 1e11), st.integers(8, 10**6))
def test_a_default_run_is_bounded_and_takes_many_steps(cost: float, count: int) -> None:
    choices = choices_of("pretrain", "model=small_64")
    choose_batch(choices, count, LAPTOP, cost=cost)
    choose_length(choices, count, LAPTOP, cost=cost)
    config = choices.config
    assert 1 <= config.epochs <= MOST_EPOCHS
    budget = DEFAULT_MINUTES * MULTIPLY_ADDS
    whole_epoch = count * cost > budget  # one is the least
    assert whole_epoch or config.epochs * count * cost <= budget * 1.5
    if config.batch_size > SMALLEST_BATCH:
        assert config.epochs * count // config.batch_size >= FEWEST_STEPS


def test_the_same_budget_is_more_images_of_a_smaller_model() -> None:
    seen = []
    for model, cost in (("digits", 11.8e6), ("micro_64", 76e6), ("small_64", 625e6)):
        choices = choices_of("pretrain", f"model={model}")
        choose_batch(choices, 5_000, LAPTOP, cost=cost)
        choose_length(choices, 5_000, LAPTOP, cost=cost)
        seen.append(choices.config.epochs)
    assert seen == [MOST_EPOCHS, 77, 13]


def test_a_timed_run_has_the_epochs_that_were_timed_and_says_how() -> None:
    choices = choices_of("pretrain", "minutes=8")
    choose_batch(choices, 5_000, LAPTOP, cost=1e7)
    choose_length(choices, 5_000, LAPTOP, cost=1e7, pace=Pace(0.21, 40, 1.0, 5.0))
    assert (choices.config.epochs, choices.config.epoch_steps) == (52, None)
    assert next(choice.reason for choice in choices.made if choice.key == "epochs").startswith("0.21 s a step")


@pytest.mark.parametrize("minutes", ["0", "-3", "nan"])
def test_no_minutes_are_refused(minutes: str) -> None:
    with pytest.raises(ValueError, match="minutes"):
        choices_of("pretrain", f"minutes={minutes}")
