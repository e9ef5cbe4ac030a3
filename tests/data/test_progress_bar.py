"""How far long work is."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import pytest

from mae.data import progress_bar
from mae.data.progress_bar import with_progress


def slow(count: int) -> Iterator[int]:
    for number in range(count):
        time.sleep(0.02)
        yield number


def test_items_pass_unchanged_and_quick_work_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    items = [object() for _ in range(5)]
    assert list(with_progress(items, 5, "packing")) == items
    assert capsys.readouterr() == ("", "")


def test_a_file_gets_lines_now_and_then(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_bar, "LINE_SECONDS", 0.05)
    list(with_progress(slow(10), 110, "packing train", "pairs", done=100))
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert 2 <= len(lines) <= 6
    assert "\r" not in err
    assert all(line.startswith("packing train: ") and line.count("/110") == 1 for line in lines)
    assert "110/110" in lines[-1]
    assert " pairs/s" in lines[-1]


def test_a_terminal_gets_a_bar_that_goes_away(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_bar, "AFTER_SECONDS", 0.05)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    list(with_progress(slow(15), None, "scanning", "files"))
    err = capsys.readouterr().err
    assert "\rscanning: " in err
    assert "\n" not in err
    assert err.rpartition("\rscanning")[2].endswith(" \r")


def test_other_processes_of_a_machine_are_silent(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_bar, "LINE_SECONDS", 0.01)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert list(with_progress(slow(3), 3, "packing")) == [0, 1, 2]
    assert capsys.readouterr().err == ""
