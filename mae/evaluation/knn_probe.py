"""kNN accuracy of a feature function on a labelled data set: training images vote on validation images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from mae.data.datamodule import ImageData
from mae.evaluation.features import extract_features
from mae.evaluation.knn import knn_accuracy


@dataclass(frozen=True)
class KnnProbe:
    """The protocol, fixed, so that every encoder of a run is measured alike.

    Attributes:
        data: Labelled splits; ``val`` is classified by ``train``, and the test split is not touched.
        bank: Training images that vote, at most, evenly spread.
        queries: Validation images that are classified, at most.
        k: Neighbours.
        pool: How tokens become a feature.
    """

    data: ImageData
    bank: int = 10_000
    queries: int = 2_000
    k: int = 20
    pool: str = "mean"

    def accuracy(self, features: Callable[[Tensor], Tensor], mean: Tensor, std: Tensor) -> float:
        """Return the share of validation images that their neighbours classify rightly."""
        splits = self.data.splits
        bank, queries = (
            extract_features(self.data.evaluation_loader(source, most=most), features, mean, std)
            for source, most in ((splits.train, self.bank), (splits.val, self.queries))
        )
        return knn_accuracy(bank, queries, len(splits.train.classes), k=self.k)
