"""The clock, and when something is due."""

from __future__ import annotations

import io
from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch.trainer.states import TrainerFn
from rich.console import Console

from mae.training.callbacks import progress
from mae.training.callbacks.moments import due
from mae.training.callbacks.progress import TrainingClock, TrainingProgress


@pytest.fixture
def time_is(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands until it is set."""
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(perf_counter=lambda: now.seconds))
    return now


def test_waiting_and_working_are_told_apart(time_is: SimpleNamespace) -> None:
    clock = TrainingClock()
    clock.ready()
    for _ in range(3):
        time_is.seconds += 1
        clock.begin()
        time_is.seconds += 4
        clock.end(10)
    assert (clock.waiting, clock.working, clock.images) == (3, 12, 30)
    assert clock.images_per_second == pytest.approx(2)
    assert clock.waiting_share == pytest.approx(0.2)


def test_validation_counts_as_neither(time_is: SimpleNamespace) -> None:
    clock = TrainingClock()
    clock.ready()
    time_is.seconds += 1
    clock.begin()
    time_is.seconds += 1
    clock.end(5)
    clock.pause()
    time_is.seconds += 1000
    clock.ready()
    time_is.seconds += 1
    clock.begin()
    time_is.seconds += 1
    clock.end(5)
    assert (clock.waiting, clock.working) == (2, 2)


def test_a_clock_that_never_ran_divides_by_no_zero() -> None:
    assert TrainingClock().images_per_second == 0
    assert TrainingClock().waiting_share == 0


def test_images_of_all_devices_count(time_is: SimpleNamespace) -> None:
    shown = TrainingProgress(Console(file=io.StringIO()), quiet=True)
    trainer = SimpleNamespace(world_size=4, is_global_zero=True)
    shown.on_train_batch_end(trainer, None, None, SimpleNamespace(images=[0] * 8), 0)
    assert shown.clock.images == 32


def trainer(epoch: int, epochs: int, every: int) -> SimpleNamespace:
    return SimpleNamespace(
        max_epochs=epochs,
        check_val_every_n_epoch=every,
        current_epoch=epoch,
        sanity_checking=False,
        state=SimpleNamespace(fn=TrainerFn.FITTING),
    )


@given(st.integers(1, 400), st.integers(1, 20), st.integers(1, 30))
def test_something_is_due_so_many_times_evenly_and_at_the_end(epochs: int, every: int, times: int) -> None:
    validated = [epoch for epoch in range(epochs) if (epoch + 1) % every == 0 or epoch + 1 == epochs]
    done = [epoch for epoch in validated if due(trainer(epoch, epochs, every), times)]
    assert len(done) == min(times, len(validated))
    assert done[-1] == epochs - 1
    gaps = [b - a for a, b in pairwise(done)]
    # The last validation may come sooner after the one before.
    assert not gaps or max(gaps) - min(gaps) <= every + -epochs % every
