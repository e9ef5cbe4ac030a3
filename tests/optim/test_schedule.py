from __future__ import annotations

import itertools
import math

import pytest

from mae.optim.schedule import scaled_lr, warmup_cosine


@pytest.mark.parametrize(
    ("base", "batch", "lr"), [(1.5e-4, 4096, 2.4e-3), (1e-3, 256, 1e-3), (1e-3, 64, 2.5e-4), (0.1, 16384, 6.4)]
)
def test_the_learning_rate_grows_with_the_effective_batch(base, batch, lr):
    assert scaled_lr(base, batch) == pytest.approx(lr, rel=1e-12)


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
