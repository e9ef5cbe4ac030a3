"""What a user is told about results."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mae.evaluation.alarm_rules import Moment, below_untrained, too_short
from mae.evaluation.paired import Difference
from mae.evaluation.verdict import pretraining_verdicts
from mae.objectives.corrupted_patches import CorruptedPatches
from mae.objectives.objective import Objective
from mae.objectives.pixels import Pixels

NORMALISED = Pixels(normalize=True)


GOOD = {
    "val_loss": 0.5,
    "measured_images": 240,
    "probe_top1": 0.8,
    "probe_top1_random": 0.6,
    "probe_top1_pixels": 0.7,
    "knn_top1": 0.9,
    "knn_top1_random": 0.5,
    "knn_top1_pixels": 0.7,
    "differences": {
        "probe_random": [0.2, 0.1, 0.3],
        "probe_pixels": [0.1, 0.02, 0.18],
        "knn_random": [0.4, 0.3, 0.5],
        "knn_pixels": [0.2, 0.1, 0.3],
    },
}
WORDS = ("Helped: ", "No difference: ", "Hurt: ")


def sentences(objective: Objective = NORMALISED, **changes: Any) -> list[str]:
    return pretraining_verdicts({**GOOD, **changes}, objective)


def verdict(objective: Objective = NORMALISED, **changes: Any) -> str:
    return " ".join(sentences(objective, **changes))


GAPS = st.tuples(st.floats(-0.5, 0.5), st.floats(0, 0.3), st.floats(0, 0.3)).map(
    lambda given: [given[0], given[0] - given[1], given[0] + given[2]]
)


@given(probe=GAPS, knn=GAPS, pixels=GAPS)
@example(probe=[0.01, -0.02, 0.04], knn=[-0.2, -0.3, -0.1], pixels=[0.0, -0.1, 0.1])
@example(probe=[0.03, 0.01, 0.05], knn=[-0.2, -0.3, -0.1], pixels=[-0.2, -0.3, -0.1])
def test_no_word_contradicts_a_swept_probe(probe: list[float], knn: list[float], pixels: list[float]) -> None:
    gaps = {"probe_random": probe, "knn_random": knn, "probe_pixels": pixels, "knn_pixels": pixels}
    first = sentences(differences=gaps)[0]
    (word,) = (word for word in WORDS if first.startswith(word))
    assert not (word == "Helped: " and probe[2] < 0)
    assert not (word == "Hurt: " and probe[1] > 0)
    if probe[1] > 0 or probe[2] < 0:
        assert word == ("Helped: " if probe[1] > 0 else "Hurt: ")
        assert "linear probe" in first
    else:
        leans = probe[0] * knn[0] > 0  # kNN has a word only where the probe leans to it as well
        expected = "Helped: " if knn[1] > 0 and leans else "Hurt: " if knn[2] < 0 and leans else "No difference: "
        assert word == expected


def test_a_tie_is_said_with_its_interval_and_its_images() -> None:
    gaps = {"probe_random": [0.008, -0.04, 0.056], "knn_random": [-0.01, -0.05, 0.03]}
    first, *others = sentences(probe_top1=0.275, probe_top1_random=0.267, differences=gaps)
    assert first == (
        "No difference: a linear probe on frozen features reaches 27.5% (22.2 to 33.5), the same on random weights 26.7% (21.5 to "
        "32.6), +0.8 points (-4.0 to +5.6) on 240 validation images."
    )
    assert "kNN on frozen features: 90.0%" in others[0]
    assert any(sentence.startswith("Pretrain longer") for sentence in others)


@pytest.mark.parametrize(
    ("gap", "says"),
    [
        ([0.1, 0.02, 0.2], "Better than raw pixels by the same measure, 70.0%"),
        ([0.0, -0.1, 0.1], "Not told apart from raw pixels"),
        ([-0.1, -0.2, -0.02], "Worse than raw pixels"),
    ],
)
def test_raw_pixels_come_second(gap: list[float], says: str) -> None:
    found = sentences(differences={**GOOD["differences"], "probe_pixels": gap})
    assert found[1].startswith(says)
    assert ("Pretrain longer" in " ".join(found)) is (gap[2] < 0)


def test_good_results_carry_no_warning() -> None:
    assert sentences()[0].startswith("Helped: ")
    assert not any(word in verdict() for word in ("Pretrain longer", "Worse", "nothing has been learned"))


def test_cosine_neighbours_alone_condemn_nothing() -> None:
    """Results of an earlier version hold accuracies without intervals, and those of kNN mislead."""
    old = {"val_loss": 0.5, "knn_top1": 0.513, "knn_top1_random": 0.568, "knn_top1_pixels": 0.4}
    first = pretraining_verdicts(old, NORMALISED)[0]
    assert first.startswith("Measured without intervals: kNN on frozen features 51.3% (random weights 56.8%).")
    assert "protocol=features" in first
    assert not first.startswith(WORDS)


def test_too_short_a_run_is_said_beside_the_word_with_its_own_remedy() -> None:
    short = too_short(168)
    gaps = {"probe_random": [0.0, -0.1, 0.1]}
    found = sentences(alarms=[short, "Waiting for data."], differences=gaps)
    assert found[1] == short
    assert "Pretrain longer" not in " ".join(found)
    assert found[-1] == "While training: Waiting for data."


def test_a_loss_near_one_is_called_nothing_learned_only_where_one_is_nothing() -> None:
    assert "nothing has been learned" in verdict(val_loss=0.99)
    assert "nothing has been learned" not in verdict(val_loss=0.9)
    # Of plain pixels the scale is another.
    assert "nothing has been learned" not in verdict(Pixels(normalize=False), val_loss=0.99)


def test_without_labels_no_accuracy_is_claimed() -> None:
    text = " ".join(pretraining_verdicts({"val_loss": 0.5}, NORMALISED))
    assert "No labels, so no word" in text
    assert "%" not in text and not text.startswith(WORDS)


def test_the_rank_is_told_where_it_was_measured() -> None:
    assert "about 26 dimensions (RankMe); at random weights 4." in verdict(rankme=26.4, rankme_random=4.4)
    assert "RankMe" not in verdict()


def test_a_probe_without_knn_is_an_accuracy() -> None:
    text = " ".join(pretraining_verdicts({"val_loss": 0.5, "probe_top1": 0.5}, NORMALISED))
    assert "No labels" not in text
    assert "50.0%" in text


@pytest.mark.parametrize("gap", [(0.1, 0.2), (-0.1, 0.1), (-0.2, -0.01)])
def test_what_features_were_worth_on_the_way_is_left_to_the_last_word(gap: tuple[float, float]) -> None:
    alarm = below_untrained("kNN on frozen features", Difference(-0.1, -0.2, -0.01, 240), Moment(900, 1000))
    gaps = {"probe_random": [sum(gap) / 2, *gap]}
    assert sentences(alarms=[alarm], differences=gaps) == sentences(differences=gaps)


def test_what_was_raised_while_training_is_among_the_verdicts_in_order() -> None:
    raised = ["Waiting for data 60% of the time.", "The rank has collapsed."]
    assert sentences(alarms=raised)[-2:] == [f"While training: {sentence}" for sentence in raised]


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
    assert "0.500 on hidden patches." in verdict(Pixels(normalize=False))
    assert "on colours of corrupted patches; knowing how" in verdict(CorruptedPatches(), label_entropy=4.2)
