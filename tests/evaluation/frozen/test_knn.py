"""kNN against a loop, and against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from mae.evaluation.frozen.knn import KnnScore, knn_accuracy, knn_predict, knn_sweep


def clouds(count: int, classes: int = 4, width: int = 6, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw features that overlap enough for neighbours to disagree."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=generator)
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(99))
    lengths = torch.rand(count, 1, generator=generator) * 5 + 0.1
    return (centres[labels] + 1.2 * torch.randn(count, width, generator=generator)) * lengths, labels


def vote_by_hand(
    bank: list[list[float]], labels: list[int], query: list[float], classes: int, k: int, temperature: float
) -> int:
    """Classify one query, in plain Python."""

    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)

    nearest = sorted(range(len(bank)), key=lambda i: -cosine(bank[i], query))[:k]
    votes = [0.0] * classes
    for i in nearest:
        votes[labels[i]] += math.exp(cosine(bank[i], query) / temperature)
    return max(range(classes), key=lambda label: votes[label])


@given(st.integers(0, 2**32), st.integers(1, 40), st.floats(0.02, 2))
@settings(max_examples=10)
def test_predictions_equal_a_loop(seed: int, k: int, temperature: float) -> None:
    (bank, labels), (queries, _) = clouds(40, seed=seed), clouds(10, seed=seed + 1)
    expected = [
        vote_by_hand(bank.tolist(), labels.tolist(), query, 4, k, temperature) for query in queries.double().tolist()
    ]
    predicted = knn_predict(bank.double(), labels, queries.double(), 4, k=k, temperature=temperature)
    assert predicted.tolist() == expected


def test_predictions_equal_scikit_learns_with_the_same_weights() -> None:
    (bank, labels), (queries, truth) = clouds(300), clouds(120, seed=1)
    judge = KNeighborsClassifier(20, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07))
    judge.fit(bank.double().numpy(), labels.numpy())
    assert (
        knn_predict(bank.double(), labels, queries.double(), 4).tolist()
        == judge.predict(queries.double().numpy()).tolist()
    )
    accuracy = knn_accuracy((bank.double(), labels), (queries.double(), truth), 4)
    assert accuracy == pytest.approx(judge.score(queries.double().numpy(), truth.numpy()))
    # A test on features that are always right would see no wrong weight.
    assert 0.4 < accuracy < 0.95


def test_lengths_of_features_do_not_count() -> None:
    (bank, labels), (queries, _) = clouds(60), clouds(30, seed=1)
    stretched = knn_predict(bank * torch.rand(60, 1).add(0.1), labels, queries * 7, 4, k=5)
    assert torch.equal(stretched, knn_predict(bank, labels, queries, 4, k=5))


def test_the_nearest_outweigh_the_many() -> None:
    bank = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    query = torch.tensor([[1.0, 0.1]])
    labels = torch.tensor([0, 1, 1])
    assert knn_predict(bank, labels, query, 2, k=3, temperature=0.07).item() == 0
    assert knn_predict(bank, labels, query, 2, k=3, temperature=100.0).item() == 1


def test_fewer_images_than_neighbours_all_vote() -> None:
    (bank, labels), (queries, _) = clouds(3), clouds(5, seed=1)
    assert torch.equal(knn_predict(bank, labels, queries, 4, k=20), knn_predict(bank, labels, queries, 4, k=3))


def test_large_similarities_at_small_temperatures_do_not_overflow() -> None:
    bank = torch.eye(3).half().float()
    predicted = knn_predict(bank, torch.tensor([2, 0, 1]), bank, 3, k=3, temperature=1e-4)
    assert predicted.tolist() == [2, 0, 1]


def test_many_queries_are_answered_as_one_by_one() -> None:
    # More than fit one chunk.
    (bank, labels), (queries, truth) = clouds(50), clouds(1100, seed=1)
    together = knn_predict(bank.double(), labels, queries.double(), 4, k=5)
    (score,) = knn_sweep((bank.double(), labels), (queries.double(), truth), 4, ks=(5,), temperatures=(0.07,))
    assert score.accuracy == pytest.approx(float((together == truth).double().mean()))
    ends = torch.cat([queries[:3], queries[-3:]]).double()
    assert together[[0, 1, 2, -3, -2, -1]].tolist() == knn_predict(bank.double(), labels, ends, 4, k=5).tolist()


def test_a_sweep_scores_every_pair_as_a_loop_does() -> None:
    (bank, labels), (queries, truth) = clouds(90), clouds(120, seed=1)
    scores = knn_sweep(
        (bank.double(), labels), (queries.double(), truth), 4, ks=(1, 7, 90, 91), temperatures=(0.05, 2.0)
    )
    expected = []
    for k in (1, 7, 90):
        for temperature in (0.05, 2.0):
            right = sum(
                vote_by_hand(bank.tolist(), labels.tolist(), query, 4, k, temperature) == label
                for query, label in zip(queries.double().tolist(), truth.tolist(), strict=True)
            )
            expected.append(KnnScore(k, temperature, right / 120))
    assert scores == expected
    # Settings that all score alike would hide one taken for another.
    assert len({score.accuracy for score in scores}) >= 4


def test_the_usual_sweep_keeps_to_the_bank() -> None:
    scores = knn_sweep(clouds(30), clouds(10, seed=1), 4)
    assert sorted({score.k for score in scores}) == [1, 5, 10, 20]
    assert len(scores) == 16
    with pytest.raises(ValueError, match="fewer neighbours"):
        knn_sweep(clouds(3), clouds(10, seed=1), 4, ks=(5, 10))
