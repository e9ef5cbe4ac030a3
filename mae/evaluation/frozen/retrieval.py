"""Whether images of one class find each other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mae.evaluation.frozen.knn import Labelled

FIRST = (1, 5, 10)
CHUNK = 256  # of queries: a gallery of 50,000 then ranks in 150 MB


@dataclass(frozen=True)
class RetrievalScores:
    """Means over the queries that have a match in the gallery, an image of their class.

    Attributes:
        recall: For k in ``FIRST``, the share of queries with a match among the first k.
        precision_10: Share of matches among the first 10, or among all where the gallery is smaller.
        mean_average_precision: Of the full ranking.
        queries: How many had a match.
    """

    recall: dict[int, float]
    precision_10: float
    mean_average_precision: float
    queries: int


@torch.no_grad()
def measure_retrieval(queries: Labelled, gallery: Labelled | None = None) -> RetrievalScores:
    """Let every query rank the gallery by cosine similarity, and see where the images of its class stand.

    Recall at k is that of Song et al. 2016 (arXiv 1511.06452); average precision is the mean, over the matches, of
    the precision down to each.

    Args:
        queries: Q images.
        gallery: G images to rank; None ranks the queries themselves, each without itself.

    Raises:
        ValueError: No query has a match.
    """
    features, labels = F.normalize(queries[0].float(), dim=1), queries[1]
    ranked, names = (features, labels) if gallery is None else (F.normalize(gallery[0].float(), dim=1), gallery[1])
    first, average = [], []
    for rows in torch.split(torch.arange(len(features)), CHUNK):
        similarity = features[rows] @ ranked.T
        if gallery is None:
            similarity[torch.arange(len(rows)), rows] = -torch.inf  # ranked last, and cut off below
        order = similarity.argsort(dim=1, descending=True)
        matches = names[order[:, :-1] if gallery is None else order] == labels[rows, None]
        matches = matches[matches.any(dim=1)]
        first.append(matches[:, : max(FIRST)])
        average.append(_average_precision(matches))
    top = torch.cat(first)
    if not len(top):
        raise ValueError(f"none of the {len(labels)} queries has an image of its class to find: give more images")
    return RetrievalScores(
        recall={k: float(top[:, :k].any(dim=1).double().mean()) for k in FIRST},
        precision_10=float(top[:, :10].double().mean()),
        mean_average_precision=float(torch.cat(average).mean()),
        queries=len(top),
    )


def _average_precision(matches: Tensor) -> Tensor:
    """Return average precisions (Q,) of rankings (Q, G), True where a match stands; each has one or more."""
    precision = matches.cumsum(dim=1) / torch.arange(1, matches.shape[1] + 1)
    return (precision * matches).sum(dim=1) / matches.sum(dim=1)
