"""Rules at their thresholds."""

from __future__ import annotations

import pytest

from mae.evaluation import alarm_rules as alarms
from mae.evaluation.paired import Difference
from mae.objectives.objective import Trivial

WORSE = Difference(-0.1, -0.15, -0.05, 1000)


def at(share: float, total: int = 1000) -> alarms.Moment:
    return alarms.Moment(round(share * total), total)


def test_a_loss_near_the_trivial_one_is_nothing_learned_after_a_fair_part() -> None:
    assert alarms.learns_nothing(0.99, Trivial(1.0, "a guess"), at(0.24)) is None
    assert alarms.learns_nothing(0.97, Trivial(1.0, "a guess"), at(1.0)) is None
    text = alarms.learns_nothing(0.99, Trivial(1.0, "a guess"), at(0.25))
    assert text is not None
    assert "near 1.00, which a guess would score" in text
    assert "after 25% of the run" in text
    assert "optim.base_lr" in text


def test_the_trivial_loss_is_lower_where_patches_are_flat() -> None:
    assert alarms.learns_nothing(0.5, Trivial(0.5, "a guess"), at(0.5)) is not None
    assert alarms.learns_nothing(0.48, Trivial(0.5, "a guess"), at(0.5)) is None


def test_a_rank_below_two_is_a_collapse_in_the_second_half() -> None:
    assert alarms.rank_collapsed(1.9, 96, at(0.4)) is None
    assert alarms.rank_collapsed(2.0, 96, at(0.9)) is None
    # Nine images have no rank to speak of.
    assert alarms.rank_collapsed(1.9, 9, at(0.9)) is None
    text = alarms.rank_collapsed(1.9, 96, at(0.5))
    assert text is not None
    assert "rank has collapsed" in text
    assert "1.9 of 96" in text
    assert "optim.warmup_epochs" in text


def test_a_run_of_seconds_is_not_judged() -> None:
    assert alarms.learns_nothing(1, Trivial(1, "a guess"), at(0.99, total=100)) is None
    assert alarms.learns_nothing(1, Trivial(1, "a guess"), at(1, total=100)) is not None
    assert alarms.rank_collapsed(1, 50, at(0.99, total=100)) is None
    assert alarms.rank_collapsed(1, 50, at(1, total=100)) is not None
    assert alarms.below_untrained("kNN", WORSE, at(0.99, total=100)) is None
    assert alarms.below_untrained("kNN", WORSE, at(1, total=100)) is not None


def test_waiting_more_than_half_the_time_is_said_with_the_real_share() -> None:
    assert alarms.waits_for_data(0.5, 1000, 1000, 4) is None
    assert alarms.waits_for_data(0.9, 99, 1000, 4) is None
    assert alarms.waits_for_data(0.9, 1000, 19.9, 4) is None
    text = alarms.waits_for_data(0.604, 100, 20, 4)
    assert text is not None
    assert "Waiting for data 60% of the time" in text
    assert "data.num_workers, now 4" in text


def test_a_warmup_as_long_as_the_run_never_ends() -> None:
    assert alarms.warmup_too_long(99, 100) is None
    text = alarms.warmup_too_long(100, 100)
    assert text is not None
    assert "Warm-up is longer than the run" in text
    assert "optim.warmup_epochs" in text


def test_a_run_of_few_steps_is_too_short_with_what_makes_more() -> None:
    assert alarms.too_short(1000) is None
    text = alarms.too_short(168)
    assert text is not None
    assert text.startswith("Too short a pretraining: 168 steps in all")
    assert "Raise epochs 6 times, or lower batch_size" in text


def test_features_worse_than_before_training_are_an_alarm_in_the_second_half() -> None:
    assert alarms.below_untrained("kNN", WORSE, at(0.49)) is None
    assert alarms.below_untrained("kNN", WORSE, at(0.5)) == (
        "The features are worse than those of random weights after 50% of the run, by kNN: -10.0 points (-15.0 to -5.0). Raise "
        "epochs; if a longer run does no better, change optim.base_lr."
    )


@pytest.mark.parametrize("gap", [(-0.1, -0.25, 0.05), (0.1, 0.05, 0.15)])
def test_what_may_be_chance_is_no_alarm(gap: tuple[float, float, float]) -> None:
    assert alarms.below_untrained("kNN", Difference(*gap, 100), at(1.0)) is None


def test_a_loss_that_is_no_number_names_the_step_and_two_ways_out() -> None:
    text = alarms.not_a_number(1234)
    assert text.startswith("The loss is not a number after step 1,234")
    assert "optim.base_lr" in text
    assert "optim.clip_norm=1" in text
    # It is said once, and not as slow learning too.
    assert alarms.learns_nothing(float("nan"), Trivial(1.0, "a guess"), at(1.0)) is None
