"""The demo, on a model that learns nothing in two epochs: what it writes, and what it may replace."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mae.cli.demo import MARKER, Table, result_table, run_demo
from mae.config.composing import compose
from tests.report.test_page import assert_self_contained
from tests.runs import DECODER, ENCODER


@pytest.mark.slow
def test_the_demo_ends_with_its_table_and_the_path_of_its_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mae.cli.demo.compose", compose_small)
    report = run_demo(tmp_path / "demo", draws=(0, 1), overrides=["epochs=2"])
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[-1].split()[0] == "report"
    assert "What 5 labels a class are worth" in "\n".join(lines[-25:])
    accuracies = json.loads((tmp_path / "demo" / "results.json").read_text())["test_top1"]
    assert {name: len(values) for name, values in accuracies.items()} == {
        "probe": 2,
        "probe_random": 2,
        "finetune": 2,
        "finetune_scratch": 2,
    }
    page = report.read_text(encoding="utf-8")
    assert "the same encoder, random weights" in page
    assert page.count(" points (") == 2
    assert "data:image/png;base64," in page
    assert_self_contained(page)
    assert {path.name for path in tmp_path.iterdir()} == {"demo"}

    # A second demo takes the place of the first.
    assert run_demo(tmp_path / "demo", draws=(0,), overrides=["epochs=1"]) == report


def compose_small(root: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    # The decoder is the pretraining's alone.
    return compose(root, [*ENCODER, *(DECODER if root == "pretrain" else ()), *overrides])


def test_a_folder_that_no_demo_made_is_left_alone(tmp_path: Path) -> None:
    kept = tmp_path / "pretrain" / "config.yaml"
    kept.parent.mkdir()
    kept.write_text("mine")
    with pytest.raises(ValueError, match="something else than a demo"):
        run_demo(tmp_path)
    assert kept.read_text() == "mine"
    assert not (tmp_path / MARKER).exists()


def test_the_table_holds_means_and_intervals_over_the_draws() -> None:
    table = result_table(
        {"knn_top1": 0.9, "knn_top1_random": 0.5, "knn_top1_pixels": 0.95},
        {"probe": [0.8, 0.9], "probe_random": [0.5, 0.5], "finetune": [0.7, 0.9], "finetune_scratch": [0.6]},
    )
    assert isinstance(table, Table)
    ours, random, scratch, pixels = (row.cells for row in table.rows)
    # Half the distance of two values, times Student's 12.706.
    assert ours[1:] == ("90.0%", "85.0% ± 63.5", "80.0% ± 127.1")
    assert random[2] == "50.0% ± 0.0"
    assert scratch[3] == "60.0%"
    assert pixels[1] == "95.0%"
