from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mae.optim.schedule import scaled_lr, warmup_cosine, warmup_steps_down


@given(st.floats(1e-6, 10), st.integers(1, 10**6))
def test_the_learning_rate_grows_with_the_effective_batch(base, batch):
    assert scaled_lr(base, batch) == pytest.approx(base * batch / 256, rel=1e-12)
    assert scaled_lr(1.5e-4, 4096) == pytest.approx(2.4e-3, rel=1e-12)  # the paper's


@given(st.integers(0, 20), st.integers(0, 80), st.floats(0, 1), st.integers(1, 40))
def test_every_schedule_rises_to_one_and_never_again(warmup, after, final, every):
    for factor, least in ((warmup_cosine(warmup, warmup + after, final), final), (warmup_steps_down(warmup, every), 0)):
        rates = [factor(step) for step in range(warmup + after + 50)]
        assert all(0 < rate <= 1 for rate in rates[:warmup])
        assert all(a < b for a, b in itertools.pairwise(rates[:warmup]))
        assert all(a >= b - 1e-12 for a, b in itertools.pairwise(rates[warmup:]))
        assert min(rates[warmup:]) >= least - 1e-12


def test_steps_fall_to_a_tenth_counted_from_the_first_step():
    factor = warmup_steps_down(3, 10)
    assert [factor(step) for step in (0, 2, 3, 9, 10, 19, 20)] == pytest.approx([1 / 3, 1, 1, 1, 0.1, 0.1, 0.01])


def test_the_warm_up_rises_linearly_from_above_zero_to_one():
    factor = warmup_cosine(10, 100)
    assert [factor(step) for step in range(10)] == pytest.approx([(step + 1) / 10 for step in range(10)])


@pytest.mark.parametrize("final", [0.0, 0.1])
def test_then_it_falls_along_half_a_cosine_to_its_final_share(final):
    factor = warmup_cosine(10, 110, final)

    assert factor(10) == pytest.approx(1.0)
    assert factor(60) == pytest.approx((1 + final) / 2)
    assert factor(35) == pytest.approx(final + (1 - final) * (1 + math.sqrt(0.5)) / 2)
    assert factor(110) == pytest.approx(final)
    assert factor(500) == pytest.approx(final)
    falling = [factor(step) for step in range(10, 111)]
    assert all(later < earlier for earlier, later in itertools.pairwise(falling))


def test_without_warm_up_it_starts_at_the_peak():
    assert warmup_cosine(0, 100)(0) == 1.0


def test_a_warm_up_as_long_as_training_never_divides_by_zero():
    factor = warmup_cosine(10, 10)
    assert factor(9) == 1.0
    assert 0 <= factor(10) <= 1
