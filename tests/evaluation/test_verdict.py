"""What a user is told about results."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from mae.evaluation.verdict import pretraining_verdicts
from mae.objectives.corrupted_patches import CorruptedPatches
from mae.objectives.objective import Objective
from mae.objectives.pixels import Pixels

NORMALISED = Pixels(normalize=True)


def verdict(objective: Objective = NORMALISED, **changes: Any) -> str:
    good = {"val_loss": 0.5, "knn_top1": 0.9, "knn_top1_random": 0.5, "knn_top1_pixels": 0.7}
    return " ".join(pretraining_verdicts({**good, **changes}, objective))


BAD = ("below", "no better", "Train longer", "nothing has been learned", "raw pixels are still")


ABOUT_FEATURES = {
    "below those of random weights": lambda trained, random, pixels: trained < random - 0.01,
    "no better than those of random weights": lambda trained, random, pixels: abs(trained - random) < 0.01,
    "raw pixels are still the better neighbours": lambda trained, random, pixels: random + 0.01 < trained < pixels,
}


@given(*[st.integers(0, 1000).map(lambda share: share / 1000)] * 3)
@example(0.4951, 0.5, 0.7)
@example(0.5099, 0.5, 0.7)
@example(0.6, 0.5, 0.7)
def test_features_are_judged_beside_random_ones_and_then_beside_pixels(
    trained: float, random: float, pixels: float
) -> None:
    assume(abs(abs(trained - random) - 0.01) > 1e-6)  # on the line rounding decides
    text = verdict(knn_top1=trained, knn_top1_random=random, knn_top1_pixels=pixels)
    for sentence, holds in ABOUT_FEATURES.items():
        assert (sentence in text) is holds(trained, random, pixels), sentence
    assert f"{trained:.1%}" in text
    assert ("it is no result to build on" in text) is (trained < random - 0.01)


def test_good_results_carry_no_warning() -> None:
    assert not any(word in verdict() for word in BAD)


def test_a_loss_near_one_is_called_nothing_learned_only_where_one_is_nothing() -> None:
    assert "nothing has been learned" in verdict(val_loss=0.99)
    assert "nothing has been learned" not in verdict(val_loss=0.9)
    # Of plain pixels the scale is another.
    assert "nothing has been learned" not in verdict(Pixels(normalize=False), val_loss=0.99)


def test_without_labels_no_accuracy_is_claimed() -> None:
    text = " ".join(pretraining_verdicts({"val_loss": 0.5}, NORMALISED))
    assert "No labels" in text
    assert "%" not in text


def test_a_probe_and_the_rank_are_told_where_they_were_measured() -> None:
    text = verdict(probe_top1=0.856, rankme=26.4, rankme_random=4.4)
    assert "trained beside: 85.6%" in text
    assert "about 26 dimensions (RankMe); at random weights 4." in text
    assert "RankMe" not in verdict()


def test_a_probe_without_knn_is_an_accuracy() -> None:
    text = " ".join(pretraining_verdicts({"val_loss": 0.5, "probe_top1": 0.5}, NORMALISED))
    assert "No labels" not in text
    assert "50.0%" in text


def test_what_was_raised_while_training_is_among_the_verdicts_in_order() -> None:
    raised = ["Waiting for data 60% of the time.", "The rank has collapsed."]
    sentences = pretraining_verdicts(
        {"val_loss": 0.5, "knn_top1": 0.9, "knn_top1_random": 0.5, "knn_top1_pixels": 0.7, "alarms": raised}, NORMALISED
    )
    assert sentences[-2:] == [f"While training: {sentence}" for sentence in raised]


def test_nothing_learned_is_judged_by_what_the_patches_make_of_the_loss() -> None:
    assert "nothing has been learned" in verdict(val_loss=0.45, patch_mean_loss=0.45)
    assert "score about 0.45" in verdict(val_loss=0.3, patch_mean_loss=0.45)


@pytest.mark.parametrize("alarms", [[], ["The loss is not a number after step 7: training diverged."]])
def test_a_run_that_diverged_is_told_so_once(alarms: list[str]) -> None:
    text = verdict(val_loss=float("nan"), alarms=alarms)
    assert text.count("The loss is not a number") == 1
    assert "of no use" in text
    assert "kNN" not in text


def test_each_objective_says_what_its_loss_is_measured_on() -> None:
    assert "on hidden, normalised patches; predicting each patch's mean would" in verdict()
    assert "0.500 on hidden patches. kNN" in verdict(Pixels(normalize=False))
    assert "on colours of corrupted patches; knowing how" in verdict(CorruptedPatches(), label_entropy=4.2)
