"""k-nearest-neighbour classification on frozen features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mae.evaluation.classification_scores import share_right

Labelled = tuple[Tensor, Tensor]
"""Features (N, D) float32 and their classes (N,) int64."""

CHUNK = 1024  # a bank of 10^6 by 1,024 queries is 4 GB; by all of them it would be more


@torch.no_grad()
def knn_predict(
    bank: Tensor, bank_labels: Tensor, queries: Tensor, classes: int, *, k: int = 20, temperature: float = 0.07
) -> Tensor:
    """Classify queries by their k nearest neighbours in cosine similarity, weighted by exp(similarity / temperature).

    The protocol and its constants are those of Wu et al. 2018 (arXiv 1805.01978), as DINO uses it with k = 20.

    Args:
        bank: (N, D) features of known class.
        bank_labels: (N,) int64.
        queries: (Q, D).
        classes: K.
        k: Neighbours; at most N are there.
        temperature: Smaller trusts the nearest more.

    Returns:
        Predicted classes (Q,) int64.
    """
    return torch.cat(
        [
            _vote(similarity, bank_labels[neighbours], classes, temperature)
            for similarity, neighbours in _nearest(bank, queries, min(k, len(bank)))
        ]
    )


def knn_accuracy(bank: Labelled, queries: Labelled, classes: int, *, k: int = 20, temperature: float = 0.07) -> float:
    """Return the share of queries that their neighbours in the bank classify rightly."""
    return share_right(knn_predict(*bank, queries[0], classes, k=k, temperature=temperature), queries[1])


@dataclass(frozen=True)
class KnnScore:
    """The share of queries that are classified rightly by k neighbours at a temperature."""

    k: int
    temperature: float
    accuracy: float


@torch.no_grad()
def knn_sweep(
    bank: Labelled,
    queries: Labelled,
    classes: int,
    *,
    ks: Sequence[int] = (1, 5, 10, 20, 50, 100, 200),
    temperatures: Sequence[float] = (0.04, 0.07, 0.1, 0.2),
) -> list[KnnScore]:
    """Score every pair of k and temperature; the neighbours are searched once, for the largest k.

    Args:
        bank: N images that vote.
        queries: Q images that are classified.
        classes: K.
        ks: Neighbours; those beyond N are dropped.
        temperatures: As in ``knn_predict``.

    Returns:
        One score a pair, in the order given, the temperatures within each k.

    Raises:
        ValueError: The bank has fewer images than the smallest k.
    """
    (features, bank_labels), (wanted, truth) = bank, queries
    pairs = [(k, temperature) for k in ks if k <= len(features) for temperature in temperatures]
    if not pairs:
        raise ValueError(
            f"ks={tuple(ks)} are all beyond the {len(features)} images of the bank: ask for fewer neighbours"
        )
    right = dict.fromkeys(pairs, 0)
    nearest = _nearest(features, wanted, max(k for k, _ in pairs))
    for (similarity, neighbours), labels in zip(nearest, torch.split(truth, CHUNK), strict=True):
        voters = bank_labels[neighbours]
        for k, temperature in pairs:
            predicted = _vote(similarity[:, :k], voters[:, :k], classes, temperature)
            right[k, temperature] += int((predicted == labels).sum())
    return [KnnScore(k, temperature, count / len(truth)) for (k, temperature), count in right.items()]


def _nearest(bank: Tensor, queries: Tensor, k: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield for each chunk of queries the similarities and indices (chunk, k) of its neighbours, the nearest first."""
    bank, queries = F.normalize(bank, dim=1), F.normalize(queries, dim=1)
    for chunk in torch.split(queries, CHUNK):
        similarity, neighbours = (chunk @ bank.T).topk(k, dim=1)
        yield similarity, neighbours


def _vote(similarity: Tensor, labels: Tensor, classes: int, temperature: float) -> Tensor:
    """Return the classes (Q,) that neighbours elect, from their similarities and labels (Q, k), the nearest first."""
    # Subtracting the best similarity changes no comparison, and no exponential overflows.
    weights = ((similarity - similarity[:, :1]) / temperature).exp()
    votes = torch.zeros(len(labels), classes, dtype=weights.dtype, device=weights.device)
    return votes.scatter_add_(1, labels, weights).argmax(dim=1)
