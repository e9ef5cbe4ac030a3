"""Retrieval against a loop over queries, and against scikit-learn's average precision."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from mae.evaluation.frozen import retrieval
from mae.evaluation.frozen.knn import Labelled
from mae.evaluation.frozen.retrieval import measure_retrieval


def draw(count: int, seed: int, classes: int = 5) -> Labelled:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=generator)
    centres = torch.randn(classes, 6, generator=torch.Generator().manual_seed(9))
    lengths = 0.1 + 5 * torch.rand(count, 1, generator=generator)
    return (centres[labels] + 1.5 * torch.randn(count, 6, generator=generator)) * lengths, labels


def by_loop(queries: Labelled, gallery: Labelled, same: bool) -> dict[str, float]:
    found: dict[str, list[float]] = {"1": [], "5": [], "10": [], "precision": [], "map": []}
    for i, (query, label) in enumerate(zip(queries[0].tolist(), queries[1].tolist(), strict=True)):
        others = [
            (sum(x * y for x, y in zip(query, row, strict=True)) / math.hypot(*query) / math.hypot(*row), name == label)
            for j, (row, name) in enumerate(zip(gallery[0].tolist(), gallery[1].tolist(), strict=True))
            if not (same and i == j)
        ]
        ranked = [match for _, match in sorted(others, key=lambda pair: -pair[0])]
        if not any(ranked):
            continue
        for k in (1, 5, 10):
            found[str(k)].append(any(ranked[:k]))
        found["precision"].append(sum(ranked[:10]) / len(ranked[:10]))
        found["map"].append(average_precision_score([m for _, m in others], [s for s, _ in others]))
    return {name: float(np.mean(values)) for name, values in found.items()} | {"queries": len(found["1"])}


def check(queries: Labelled, gallery: Labelled | None) -> None:
    scores = measure_retrieval(queries, gallery)
    expected = by_loop(queries, queries if gallery is None else gallery, gallery is None)
    assert scores.recall == pytest.approx({k: expected[str(k)] for k in (1, 5, 10)})
    assert scores.precision_10 == pytest.approx(expected["precision"])
    assert scores.mean_average_precision == pytest.approx(expected["map"], abs=1e-6)
    assert scores.queries == expected["queries"]
    # Where all is found, a wrong rank goes unseen.
    assert 0.2 < scores.mean_average_precision < 0.9


@pytest.mark.parametrize("chunk", [7, 256])
def test_a_gallery_is_ranked_as_in_a_loop(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(retrieval, "CHUNK", chunk)
    check(draw(40, 0), draw(60, 1))


@pytest.mark.parametrize("chunk", [7, 256])
def test_queries_among_themselves_do_not_find_themselves(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(retrieval, "CHUNK", chunk)
    check(draw(50, 0), None)


def test_a_gallery_smaller_than_ten() -> None:
    check(draw(30, 0), draw(6, 1))


def test_images_alone_in_their_class_are_no_queries() -> None:
    features, labels = draw(40, 0)
    labels[3] = 5
    check((features, labels), None)
    assert measure_retrieval((features, labels)).queries == 39


def test_a_hand_made_ranking() -> None:
    # Ranks: match, other, match, other.
    gallery = torch.tensor([[1.0, 0.1], [1.0, 0.2], [1.0, 0.3], [1.0, 0.4]]), torch.tensor([0, 1, 0, 2])
    scores = measure_retrieval((torch.tensor([[9.0, 0.0]]), torch.tensor([0])), gallery)
    assert scores.recall == {1: 1.0, 5: 1.0, 10: 1.0}
    assert scores.precision_10 == 0.5
    assert scores.mean_average_precision == pytest.approx((1 + 2 / 3) / 2)


def test_where_nothing_can_be_found_there_are_no_scores() -> None:
    with pytest.raises(ValueError, match="none of the 3 queries"):
        measure_retrieval((torch.randn(3, 4), torch.tensor([0, 1, 2])))
