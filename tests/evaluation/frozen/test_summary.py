"""The whole measurement: what is chosen where, what is capped, and what goes to JSON."""

from __future__ import annotations

import json

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import normalized_mutual_info_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mae.evaluation.frozen import summary as frozen
from mae.evaluation.frozen.features import whitened
from mae.evaluation.frozen.knn import Labelled, knn_accuracy, knn_predict
from mae.evaluation.frozen.retrieval import measure_retrieval
from mae.evaluation.frozen.summary import FrozenScores, measure_frozen

NAMES = ("ant", "bee", "cat", "dog")


def draw(count: int, seed: int) -> Labelled:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 4
    centres = torch.randn(4, 6, generator=torch.Generator().manual_seed(3))
    return centres[labels] + 1.2 * torch.randn(count, 6, generator=generator), labels


TRAIN, VAL, SCORE = draw(120, 0), draw(60, 1), draw(80, 2)


@pytest.fixture(scope="module")
def scores() -> FrozenScores:
    return measure_frozen(TRAIN, VAL, SCORE, NAMES, draws=2)


def knn_by_hand(queries: Labelled, k: int, temperature: float) -> float:
    bank, wanted = whitened(TRAIN[0], queries[0])
    return float((knn_predict(bank, TRAIN[1], wanted, 4, k=k, temperature=temperature) == queries[1]).double().mean())


def test_neighbours_are_chosen_on_validation_and_scored_elsewhere(scores: FrozenScores) -> None:
    on_val = {
        (k, temperature): knn_by_hand(VAL, k, temperature)
        for k in (1, 5, 10, 20, 50, 100)
        for temperature in (0.04, 0.07, 0.1, 0.2)
    }
    results = scores.results()
    chosen = results["knn_k"], results["knn_temperature"]
    assert results["knn_val_top1"] == pytest.approx(max(on_val.values()))
    assert on_val[chosen] == max(on_val.values())
    assert results["knn_top1"] == pytest.approx(knn_by_hand(SCORE, *chosen))
    assert results["knn_top1"] != results["knn_val_top1"]


def test_the_regression_is_chosen_on_validation_and_scored_elsewhere(scores: FrozenScores) -> None:
    results = scores.results()
    judge = make_pipeline(StandardScaler(), LogisticRegression(C=results["logistic_c"], max_iter=5000))
    judge.fit(TRAIN[0].numpy(), TRAIN[1].numpy())
    assert results["logistic_top1"] == pytest.approx(judge.score(SCORE[0].numpy(), SCORE[1].numpy()), abs=0.02)
    assert results["logistic_val_top1"] == pytest.approx(judge.score(VAL[0].numpy(), VAL[1].numpy()), abs=0.02)
    assert results["few_shot"]["100%"] == [results["logistic_top1"]]


def test_nothing_is_chosen_on_what_is_scored(scores: FrozenScores) -> None:
    wrong = measure_frozen(TRAIN, VAL, (SCORE[0], (SCORE[1] + 1) % 4), NAMES, draws=2)
    for key in ("knn_k", "knn_temperature", "knn_val_top1", "logistic_c", "logistic_val_top1"):
        assert wrong.results()[key] == scores.results()[key]
    assert wrong.knn_top1 < 0.4 < scores.knn_top1
    for budget, accuracies in scores.few_shot.items():
        assert max(wrong.few_shot[budget]) < min(accuracies), budget


def test_clusters_and_retrieval_are_of_the_scored_images(scores: FrozenScores) -> None:
    results = scores.results()
    alone = measure_retrieval((whitened(TRAIN[0], SCORE[0], power=0.5)[1], SCORE[1]))
    assert results["retrieval_map"] == alone.mean_average_precision
    assert results["retrieval_precision_10"] == alone.precision_10
    assert [results[f"retrieval_recall_{k}"] for k in (1, 5, 10)] == [alone.recall[k] for k in (1, 5, 10)]
    assert 0 < results["clustering_nmi"] < 1
    separate = torch.eye(4)[SCORE[1]], SCORE[1]
    perfect = measure_frozen((torch.eye(4)[TRAIN[1]], TRAIN[1]), VAL_SEPARATE, separate, NAMES, draws=1).results()
    for key in ("clustering_nmi", "clustering_ari", "clustering_accuracy", "retrieval_map", "knn_top1"):
        assert perfect[key] == pytest.approx(1)
    assert normalized_mutual_info_score(SCORE[1], SCORE[1]) == 1


VAL_SEPARATE = torch.eye(4)[VAL[1]], VAL[1]


def test_features_as_they_are_are_compared_where_it_is_asked_for(scores: FrozenScores) -> None:
    raw, white = measure_frozen(TRAIN, VAL, SCORE, NAMES, draws=2, whiten=False).results(), scores.results()
    assert raw["retrieval_map"] == measure_retrieval(SCORE).mean_average_precision
    chosen = {"k": raw["knn_k"], "temperature": raw["knn_temperature"]}
    assert raw["knn_top1"] == knn_accuracy(TRAIN, SCORE, 4, **chosen)
    for key in ("logistic_top1", "few_shot"):  # standardised in any case
        assert raw[key] == white[key]


def test_results_are_plain_json(scores: FrozenScores) -> None:
    results = scores.results()
    assert json.loads(json.dumps(results, allow_nan=False)) == results
    assert list(results["few_shot"]) == ["1 per class", "5 per class", "10 per class", "1%", "10%", "100%"]
    assert [len(values) for values in results["few_shot"].values()] == [2, 2, 2, 2, 2, 1]
    assert results["frozen_notes"] == []


def test_large_splits_are_thinned_fairly_and_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    # Training images class by class, where the first alone would miss classes; others in turn, where every n-th would.
    order = TRAIN[1].argsort(stable=True)
    monkeypatch.setattr(frozen, "MOST_TRAIN", 60)
    monkeypatch.setattr(frozen, "MOST_OTHERS", 20)
    said: list[str] = []
    scores = measure_frozen((TRAIN[0][order], TRAIN[1][order]), VAL, SCORE, NAMES, draws=1, say=said.append)
    assert scores.notes == [
        "60 of the 120 training images were used, drawn at random.",
        "20 of the 60 validation images were used, drawn at random.",
        "20 of the 80 scored images were used, drawn at random.",
    ]
    assert said[0] == "kNN: 60 images vote"
    assert "few-shot, 10 per class: 40 labels, 1 draw" in said
    assert "retrieval among 20 images" in said
    assert scores.retrieval is not None
    assert scores.retrieval.queries == 20
    assert scores.retrieval.mean_average_precision < 0.9, "images of several classes are left"


def test_a_seed_draws_labels_and_starts_clusters_anew_and_changes_nothing_else(
    scores: FrozenScores, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = scores.results(), measure_frozen(TRAIN, VAL, SCORE, NAMES, draws=2, seed=1).results()
    assert {key for key in first if first[key] != second[key]} == {
        "few_shot",
        "clustering_nmi",
        "clustering_ari",
        "clustering_accuracy",
    }
    # Nor does it draw which images are kept.
    for split in ("MOST_TRAIN", "MOST_OTHERS"):
        monkeypatch.setattr(frozen, split, 30)
    first, second = (measure_frozen(TRAIN, VAL, SCORE, NAMES, draws=1, seed=seed).results() for seed in (0, 1))
    for key in ("knn_top1", "knn_val_top1", "logistic_top1", "retrieval_map"):
        assert first[key] == second[key]


def test_what_is_too_small_is_left_out_and_said() -> None:
    few = SCORE[0][:3], SCORE[1][:3]
    scores = measure_frozen((TRAIN[0][:24], TRAIN[1][:24]), VAL, few, NAMES, draws=1)
    assert not [key for key in scores.results() if key.startswith(("clustering", "retrieval"))]
    text = " ".join(scores.results()["frozen_notes"])
    for part in ("10 per class", "clustering was skipped: 3 images", "retrieval was skipped: none of the 3"):
        assert part in text


def test_a_regression_that_did_not_converge_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mae.evaluation.frozen.logistic.MOST_ITERATIONS", 1)
    assert "had not converged" in " ".join(measure_frozen(TRAIN, VAL, SCORE, NAMES, draws=1).notes)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_features_and_labels_that_cannot_be_measured_are_refused(place: int) -> None:
    name = ("training", "validation", "scored")[place]

    def measure(bad: Labelled) -> None:
        splits = [TRAIN, VAL, SCORE]
        splits[place] = bad
        measure_frozen(*splits, NAMES)

    features, labels = draw(40, 5)
    broken = features.clone()
    broken[7, 2] = torch.nan
    with pytest.raises(ValueError, match=f"{name} images are not finite.*optim.base_lr"):
        measure((broken, labels))
    with pytest.raises(ValueError, match=f"40 of 40 {name} images have no label"):
        measure((features, torch.full((40,), -1)))
    with pytest.raises(ValueError, match=f"no {name} images"):
        measure((features[:0], labels[:0]))
