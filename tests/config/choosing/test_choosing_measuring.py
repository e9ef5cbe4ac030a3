"""How much is measured, and how often: within a share of the run, whatever its length."""

from __future__ import annotations

from dataclasses import astuple

from hypothesis import given
from hypothesis import strategies as st

from mae.config.choosing.measuring import ENOUGH, FLOOR, Measuring, choose_measuring, plan_measuring
from tests.config.choosing.composed import choices_of

COSTS = st.floats(0.05, 5)
IMAGES = st.integers(1, 10**6)


@given(st.floats(0, 1e7), st.integers(0, 10), IMAGES, IMAGES, COSTS, COSTS)
def test_measuring_stays_within_its_budget(
    budget: float, times: int, train: int, val: int, bank_cost: float, query_cost: float
) -> None:
    most = Measuring(times, min(train, 10_000), min(val, 2_000))
    plan = plan_measuring(budget, most, bank_cost, query_cost)
    assert all(value <= limit for value, limit in zip(astuple(plan), astuple(most), strict=True))
    assert plan.bank >= min(FLOOR, most.bank) and plan.queries >= min(FLOOR, most.queries)
    cost = (1 + max(1, plan.times)) * (plan.bank * bank_cost + plan.queries * query_cost)
    floor = (1 + max(1, plan.times)) * FLOOR * (bank_cost + query_cost)
    assert cost <= max(budget, floor) + 1e-6
    assert plan.times >= min(1, most.times)
    if plan.times < most.times and plan.times > 1:  # looks go before images do
        assert plan.times == 2 or (plan.bank, plan.queries) == (most.bank, most.queries)
    if plan.times > 1:
        assert plan.bank + plan.queries >= min(ENOUGH, most.bank + most.queries)


def test_a_longer_run_is_measured_on_more_images_and_then_more_often() -> None:
    most = Measuring(4, 10_000, 2_000)
    plans = [plan_measuring(budget, most, 0.6, 0.6) for budget in (0, 1e3, 5e3, 1e4, 3e4, 1e5)]
    assert plans == [
        Measuring(1, 256, 256),
        Measuring(1, 556, 277),
        Measuring(1, 2778, 1388),
        Measuring(2, 3704, 1851),
        Measuring(3, 10_000, 2_000),
        Measuring(4, 10_000, 2_000),
    ]
    assert plan_measuring(1e5, Measuring(0, 10_000, 2_000), 0.6, 0.6) == Measuring(0, 10_000, 2_000)


def test_what_is_chosen_is_said_and_what_is_given_is_a_bound() -> None:
    choices = choices_of("pretrain", "callbacks.knn_bank=700")
    plan = choose_measuring(choices, 10**6, 54_000, 6_000, 0.6, 0.6)
    assert plan == Measuring(4, 700, 2_000)
    assert {choice.key: choice.value for choice in choices.made} == {
        "callbacks.knn_times": 4,
        "callbacks.knn_queries": 2_000,
    }
    short = choices_of("pretrain", "callbacks.knn_bank=700")
    assert choose_measuring(short, 1000, 54_000, 6_000, 0.6, 0.6) == Measuring(1, 256, 256)
    assert short.config.callbacks.knn_bank == 700
    assert [str(choice) for choice in short.made] == [
        f"callbacks.{key}: more would cost more than 0.03 of the training, callbacks.share"
        for key in ("knn_times=1", "knn_bank=256", "knn_queries=256")
    ]
    more = choices_of("pretrain", "callbacks.knn_bank=700", "callbacks.share=100")
    assert choose_measuring(more, 1000, 54_000, 6_000, 0.6, 0.6) == Measuring(4, 700, 2_000)
