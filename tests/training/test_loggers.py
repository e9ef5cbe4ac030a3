"""metrics.csv, across steps and resumes."""

from __future__ import annotations

import csv
from pathlib import Path

from mae.training.loggers import MetricsFile, read_metrics


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_each_step_is_a_row_and_each_metric_a_column(tmp_path: Path) -> None:
    log = MetricsFile(tmp_path)
    log.log_metrics({"train_loss": 1.5, "epoch": 0}, 0)
    log.log_metrics({"train_loss": 1.25, "epoch": 0}, 1)
    assert rows(tmp_path) == [
        {"step": "0", "epoch": "0", "train_loss": "1.5"},
        {"step": "1", "epoch": "0", "train_loss": "1.25"},
    ]


def test_the_file_is_complete_after_every_step(tmp_path: Path) -> None:
    # A run that is killed has written all that it has logged.
    log = MetricsFile(tmp_path)
    for step in range(5):
        log.log_metrics({"a": step}, step)
        assert [row["a"] for row in rows(tmp_path)] == [str(i) for i in range(step + 1)]


def test_a_metric_that_comes_later_gets_its_column_everywhere(tmp_path: Path) -> None:
    log = MetricsFile(tmp_path)
    log.log_metrics({"a": 1}, 0)
    log.log_metrics({"a": 2, "val, loss": 3}, 1)
    log.log_metrics({"a": 4}, 2)
    assert [row["val, loss"] for row in rows(tmp_path)] == ["", "3", ""]
    assert [row["a"] for row in rows(tmp_path)] == ["1", "2", "4"]


def test_metrics_of_one_step_share_a_row(tmp_path: Path) -> None:
    log = MetricsFile(tmp_path)
    log.log_metrics({"train_loss": 1, "epoch": 0}, 9)
    log.log_metrics({"val_loss": 2, "epoch": 0}, 9)
    assert rows(tmp_path) == [{"step": "9", "epoch": "0", "train_loss": "1", "val_loss": "2"}]


def test_a_resume_keeps_the_earlier_rows_and_drops_those_done_again(tmp_path: Path) -> None:
    log = MetricsFile(tmp_path)
    for step in range(8):
        log.log_metrics({"a": step / 10, "epoch": step // 4}, step)
    again = MetricsFile(tmp_path, keep_until=4)
    # Nothing is dropped before the run really goes on: a later check may still refuse it.
    assert len(rows(tmp_path)) == 8
    again.log_metrics({"a": 0.45, "epoch": 1}, 4)
    again.log_metrics({"a": 0.5, "b": 7, "epoch": 1}, 5)
    assert [row["a"] for row in rows(tmp_path)] == ["0.0", "0.1", "0.2", "0.3", "0.45", "0.5"]
    assert rows(tmp_path)[0]["b"] == ""


def test_nothing_is_written_before_something_is_logged(tmp_path: Path) -> None:
    MetricsFile(tmp_path / "run")
    MetricsFile(tmp_path / "run", keep_until=3)
    assert list(tmp_path.iterdir()) == []


def test_series_are_read_back_without_their_gaps(tmp_path: Path) -> None:
    log = MetricsFile(tmp_path)
    log.log_metrics({"a": 1.0, "epoch": 0}, 0)
    log.log_metrics({"b": 2.0, "epoch": 0}, 5)
    log.log_metrics({"a": 0.0, "epoch": 1}, 7)
    assert read_metrics(tmp_path / "metrics.csv") == {"a": [(0, 1.0), (7, 0.0)], "b": [(5, 2.0)]}
