"""Clustering: agreement against formulas and against every matching there is."""

from __future__ import annotations

import itertools
import math
import warnings
from collections import Counter

import pytest
import torch

from mae.evaluation.frozen.clustering import matched_accuracy, measure_clustering


def rays(count: int, groups: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw tight groups of directions; lengths vary so much that distances would mix them."""
    generator = torch.Generator().manual_seed(0)
    member = torch.randint(groups, (count,), generator=generator)
    features = torch.eye(groups, 8)[member] + 0.02 * torch.randn(count, 8, generator=generator)
    return features * torch.logspace(-2, 2, count)[torch.randperm(count, generator=generator), None], member


def nmi_by_hand(a: list[int], b: list[int]) -> float:
    def entropy(values: list[object]) -> float:
        return -sum(n / len(values) * math.log(n / len(values)) for n in Counter(values).values())

    joint = entropy(list(zip(a, b, strict=True)))
    return (entropy(list(a)) + entropy(list(b)) - joint) / ((entropy(list(a)) + entropy(list(b))) / 2)


def ari_by_hand(a: list[int], b: list[int]) -> float:
    """Count pairs: together in both, against what chance would give."""
    pairs = list(itertools.combinations(range(len(a)), 2))
    in_a = sum(a[i] == a[j] for i, j in pairs)
    in_b = sum(b[i] == b[j] for i, j in pairs)
    both = sum(a[i] == a[j] and b[i] == b[j] for i, j in pairs)
    chance = in_a * in_b / len(pairs)
    return (both - chance) / ((in_a + in_b) / 2 - chance)


def test_figures_are_those_of_the_partition_into_directions() -> None:
    features, member = rays(120)
    # Labels that agree with the directions for some images only, under other names.
    labels = torch.where(torch.arange(120) % 3 == 0, (member + 1) % 4, (member + 2) % 4)
    scores = measure_clustering(features, labels, 4)
    assert scores.nmi == pytest.approx(nmi_by_hand(member.tolist(), labels.tolist()))
    assert scores.ari == pytest.approx(ari_by_hand(member.tolist(), labels.tolist()))
    assert scores.accuracy == pytest.approx(80 / 120)


def test_classes_that_are_clusters_score_one() -> None:
    features, member = rays(60)
    scores = measure_clustering(features, (member + 1) % 4, 4)
    assert (scores.nmi, scores.ari, scores.accuracy) == pytest.approx((1, 1, 1))


def test_noise_scores_about_chance() -> None:
    labels = torch.randint(4, (400,), generator=torch.Generator().manual_seed(1))
    scores = measure_clustering(torch.randn(400, 8, generator=torch.Generator().manual_seed(2)), labels, 4)
    assert abs(scores.ari) < 0.03
    assert scores.nmi < 0.05
    assert 0.25 < scores.accuracy < 0.4


def test_matching_is_the_best_of_all() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        clusters, labels = torch.randint(4, (2, 30), generator=generator)
        best = max(
            sum(order[c] == label for c, label in zip(clusters.tolist(), labels.tolist(), strict=True))
            for order in itertools.permutations(range(4))
        )
        assert matched_accuracy(clusters, labels, 4) == best / 30


def test_a_class_is_matched_to_one_cluster_only() -> None:
    # Were clusters named after their commonest class, splitting a class would cost nothing.
    assert matched_accuracy(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 0, 0]), 3) == 0.5


def test_a_seed_repeats_itself() -> None:
    features = torch.randn(300, 8, generator=torch.Generator().manual_seed(2))
    labels = torch.arange(300) % 6
    scores = [measure_clustering(features, labels, 6, seed=seed) for seed in (0, 0, 1, 2, 3)]
    assert scores[0] == scores[1]
    assert len(set(scores)) > 1, "another seed starts elsewhere"


def test_collapsed_features_agree_with_nothing_and_warn_of_nothing() -> None:
    labels = torch.arange(30) % 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = measure_clustering(torch.ones(30, 5), labels, 3)
    assert (scores.nmi, scores.ari, scores.accuracy) == pytest.approx((0, 0, 1 / 3))


def test_fewer_images_than_clusters_are_refused() -> None:
    with pytest.raises(ValueError, match="2 images are fewer than the 3 clusters"):
        measure_clustering(torch.randn(2, 5), torch.tensor([0, 1]), 3)
