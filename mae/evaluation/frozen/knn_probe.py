"""kNN accuracy of a feature function on a labelled data set: training images vote on validation images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from mae.data.datamodule import ImageData
from mae.evaluation.frozen.features import extract_features
from mae.evaluation.frozen.knn import knn_accuracy


@dataclass(frozen=True)
class KnnProbe:
    """The protocol, fixed, so that every encoder of a run is measured alike.

    Attributes:
        data: ``val`` is classified by ``train``, which then need labels; the test split is not touched.
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

    def accuracy(
        self,
        features: Callable[[Tensor], Tensor],
        mean: Tensor,
        std: Tensor,
        queries: tuple[Tensor, Tensor] | None = None,
    ) -> float:
        """Return the share of validation images that their neighbours classify rightly.

        Args:
            features: Standardised images (B, C, H, W) to (B, D).
            mean: (C, 1, 1), on the device that computes.
            std: As ``mean``.
            queries: The validation images' features and labels, where they have been extracted already.
        """
        train = self.data.splits.train
        bank = extract_features(self.data.evaluation_loader(train, most=self.bank), features, mean, std)
        queries = self.validation(features, mean, std) if queries is None else queries
        return knn_accuracy(bank, queries, len(train.classes), k=self.k)

    def validation(self, features: Callable[[Tensor], Tensor], mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (Q, D) and labels (Q,), -1 without any, of the validation images; arguments as for ``accuracy``."""
        loader = self.data.evaluation_loader(self.data.splits.val, most=self.queries)
        return extract_features(loader, features, mean, std)
