"""Whether the classes lie in clusters of their own."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from torch import Tensor

STARTS = 5


@dataclass(frozen=True)
class ClusteringScores:
    """Agreement of clusters with classes; 1 is perfect.

    Attributes:
        nmi: Mutual information over the mean of both entropies, 0 where they share nothing.
        ari: Adjusted Rand index (Hubert and Arabie 1985), about 0 by chance.
        accuracy: Share of images in the cluster that is matched to their class.
    """

    nmi: float
    ari: float
    accuracy: float


def measure_clustering(features: Tensor, labels: Tensor, classes: int, *, seed: int = 0) -> ClusteringScores:
    """Cluster L2-normalised features by k-means into as many clusters as classes, and compare with the labels.

    The best of ``STARTS`` k-means++ starts is taken, by its own loss; no label enters before the comparison.

    Args:
        features: (N, D).
        labels: (N,) int64.
        classes: K.
        seed: Of the starts.

    Raises:
        ValueError: N is less than K.
    """
    if len(features) < classes:
        raise ValueError(f"{len(features)} images are fewer than the {classes} clusters asked for: give more images")
    directions = F.normalize(features.float(), dim=1).numpy()
    with warnings.catch_warnings():
        # Collapsed features fill fewer clusters than asked for; the figures say so.
        warnings.simplefilter("ignore", ConvergenceWarning)
        assigned = KMeans(classes, n_init=STARTS, random_state=seed).fit(directions).labels_
    truth = labels.numpy()
    return ClusteringScores(
        nmi=float(normalized_mutual_info_score(truth, assigned)),
        ari=float(adjusted_rand_score(truth, assigned)),
        accuracy=matched_accuracy(torch.from_numpy(assigned).long(), labels, classes),
    )


def matched_accuracy(clusters: Tensor, labels: Tensor, classes: int) -> float:
    """Return the accuracy under the best one-to-one matching of K clusters to K classes.

    The matching is by the Hungarian method, as in Xie et al. 2016 (arXiv 1511.06335).

    Args:
        clusters: (N,) int64 in [0, K).
        labels: As ``clusters``.
        classes: K.
    """
    table = torch.bincount(clusters * classes + labels, minlength=classes**2).view(classes, classes)
    rows, columns = linear_sum_assignment(table.numpy(), maximize=True)
    return int(table[rows, columns].sum()) / len(labels)
