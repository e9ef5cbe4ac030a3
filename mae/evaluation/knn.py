"""k-nearest-neighbour classification on frozen features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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
    bank, queries = F.normalize(bank, dim=1), F.normalize(queries, dim=1)
    k = min(k, len(bank))
    predictions = []
    for chunk in torch.split(queries, 1024):  # a bank of 10^6 by 1,024 queries is 4 GB; by all of them it would be more
        similarity, neighbours = (chunk @ bank.T).topk(k, dim=1)
        # Subtracting the best similarity changes no comparison, and no exponential overflows.
        weights = ((similarity - similarity[:, :1]) / temperature).exp()
        votes = torch.zeros(len(chunk), classes, dtype=weights.dtype, device=weights.device)
        predictions.append(votes.scatter_add_(1, bank_labels[neighbours], weights).argmax(dim=1))
    return torch.cat(predictions)


def knn_accuracy(bank: tuple[Tensor, Tensor], queries: tuple[Tensor, Tensor], classes: int, *, k: int = 20) -> float:
    """Return the share of queries, (features, labels), that their neighbours in the bank classify rightly."""
    predicted = knn_predict(*bank, queries[0], classes, k=k)
    return float((predicted == queries[1]).float().mean())
