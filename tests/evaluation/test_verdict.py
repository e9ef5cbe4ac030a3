"""What a user is told about results."""

from __future__ import annotations

from typing import Any

import pytest

from mae.evaluation.verdict import pretraining_verdicts


def verdict(**changes: Any) -> str:
    good = {"val_loss": 0.5, "normalize_pixels": True, "knn_top1": 0.9, "knn_top1_random": 0.5, "knn_top1_pixels": 0.7}
    return " ".join(pretraining_verdicts({**good, **changes}))


BAD = ("below", "no better", "Train longer", "nothing has been learned", "raw pixels are still")


def test_features_below_random_ones_are_called_so() -> None:
    text = verdict(knn_top1=0.4)
    assert "below those of random weights" in text
    assert "no result to build on" in text
    assert "40.0%" in text
    assert "50.0%" in text


@pytest.mark.parametrize("accuracy", [0.4951, 0.5, 0.5099])
def test_features_like_random_ones_are_called_no_better(accuracy: float) -> None:
    text = verdict(knn_top1=accuracy)
    assert "no better than those of random weights" in text
    assert "helped" not in text


def test_features_above_random_ones_but_below_pixels_are_put_in_place() -> None:
    text = verdict(knn_top1=0.6)
    assert "raw pixels are still the better neighbours" in text
    assert "below those of random" not in text


def test_good_results_carry_no_warning() -> None:
    assert not any(word in verdict() for word in BAD)


def test_a_loss_near_one_is_called_nothing_learned_only_where_one_is_nothing() -> None:
    assert "nothing has been learned" in verdict(val_loss=0.99)
    assert "nothing has been learned" not in verdict(val_loss=0.9)
    # Of plain pixels the scale is another.
    assert "nothing has been learned" not in verdict(val_loss=0.99, normalize_pixels=False)


def test_without_labels_no_accuracy_is_claimed() -> None:
    text = " ".join(pretraining_verdicts({"val_loss": 0.5, "normalize_pixels": True}))
    assert "No labels" in text
    assert "%" not in text
