"""Curves of what a run measures as it goes on."""

from __future__ import annotations

from pathlib import Path

from mae.report.curves import run_curves


def test_the_probe_stands_beside_knn_with_the_level_of_random_weights(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,epoch,knn_top1,probe_top1\n5,0,0.6,0.5\n9,1,0.7,0.8\n")
    ((title, drawn),) = run_curves(tmp_path, {"knn_top1_random": 0.2, "probe_top1_random": 0.3})
    assert title == "Accuracy on frozen features"
    for label in (">kNN<", ">linear probe<", "kNN, random weights", "linear probe, random weights"):
        assert label in drawn


def test_a_probe_alone_is_drawn_too(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,epoch,probe_top1\n5,0,0.5\n")
    assert [title for title, _ in run_curves(tmp_path, {})] == ["Accuracy on frozen features"]


def test_the_rank_has_a_curve_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,epoch,rankme,feature_std\n5,0,4.5,0.1\n9,1,20.5,0.6\n")
    ((title, drawn),) = run_curves(tmp_path, {"rankme_random": 4.1})
    assert title == "Dimensions that the features use"
    assert "RankMe" in drawn
    assert "random weights" in drawn
