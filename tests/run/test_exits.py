"""What ends a run: a user's error is one line, an error of ours keeps its traceback."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from mae.data.reading.decode import UnreadableImageError
from mae.run.exits import ExitStatus, one_line_errors, run_job
from mae.training.callbacks.divergence import DivergedError

OF_USERS = (ValueError("a[b] is wrong"), FileNotFoundError("no file"), ImportError("wandb is not installed"))
OF_OURS = (TypeError("ours"), KeyError("ours"), RuntimeError("ours"), AssertionError("ours"))


class Failing:
    """A job that ends early."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def run(self) -> Mapping[str, Any]:
        raise self.error


def test_errors_that_a_user_can_cause_are_one_line_and_status_two(capsys: pytest.CaptureFixture[str]) -> None:
    for error in OF_USERS:
        with pytest.raises(SystemExit) as ended, one_line_errors():
            raise error
        assert ended.value.code == ExitStatus.REFUSED
        assert capsys.readouterr().err == f"error: {error}\n"


def test_errors_of_ours_keep_their_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    for error in OF_OURS:
        with pytest.raises(type(error)) as raised, one_line_errors():
            raise error
        assert raised.value is error
    for error in (*OF_OURS, *OF_USERS):  # nothing that a user gave is read once the work has begun
        with pytest.raises(type(error)) as raised:
            run_job(Failing(error))
        assert raised.value is error
    assert capsys.readouterr().err == ""


def test_what_may_happen_to_a_run_has_its_status(capsys: pytest.CaptureFixture[str]) -> None:
    for error, status in (
        (UnreadableImageError("a.jpg cannot be read"), ExitStatus.REFUSED),
        (
            UnreadableImageError("Traceback (most recent call last):\n  x\nmae.UnreadableImageError: a.jpg"),
            ExitStatus.REFUSED,
        ),
        (DivergedError("the loss is no number"), ExitStatus.DIVERGED),
    ):
        with pytest.raises(SystemExit) as ended:
            run_job(Failing(error))
        assert ended.value.code == status
        assert capsys.readouterr().err == f"error: {str(error).splitlines()[-1].rpartition('Error: ')[2]}\n"
