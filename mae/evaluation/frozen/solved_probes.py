"""What frozen features are worth, without training a network: whitened kNN and a solved linear probe on images set aside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mae.data.datamodule import ImageData
from mae.data.source import Source
from mae.evaluation.frozen.features import extract_features, whitened
from mae.evaluation.frozen.knn import Labelled, knn_predict
from mae.evaluation.frozen.logistic import fit_logistic

Features = Callable[[Tensor], Tensor]
"""Standardised images (B, C, H, W) to (B, D)."""

STRENGTHS = (1e-3, 1e-2, 0.1, 1.0)
"""Values of C that the probe tries: a factor of ten apart costs a few tenths of a point at most."""
FALLBACK = 1e-2
"""C where there are too few images to choose it."""
HELD_OUT = 5
"""One in so many labelled images chooses C."""


@dataclass(frozen=True)
class ValidationImages:
    """The images that every encoder of a run is measured on, so that figures can be compared image by image.

    Attributes:
        data: Its ``train`` votes and is learned from, its ``val`` is classified; the test split is not touched.
        bank: Training images, at most, drawn at random.
        queries: Validation images, at most, drawn at random.
    """

    data: ImageData
    bank: int = 10_000
    queries: int = 2_000

    @property
    def classes(self) -> int:
        """K."""
        return len(self.data.splits.train.classes)

    def bank_of(self, features: Features, mean: Tensor, std: Tensor) -> Labelled:
        """Return features (N, D) and labels (N,), -1 without any, of the training images.

        Args:
            features: What is measured.
            mean: (C, 1, 1), on the device that computes.
            std: As ``mean``.
        """
        return self._extract(self.data.splits.train.sample, self.bank, features, mean, std)

    def queries_of(self, features: Features, mean: Tensor, std: Tensor) -> Labelled:
        """Return those of the validation images; arguments as for ``bank_of``."""
        return self._extract(self.data.splits.val, self.queries, features, mean, std)

    def _extract(self, source: Source, most: int, features: Features, mean: Tensor, std: Tensor) -> Labelled:
        return extract_features(self.data.evaluation_loader(source, most=most), features, mean, std)


def knn_right(bank: Labelled, queries: Labelled, classes: int, k: int = 20) -> Tensor:
    """Return which queries (Q,) their k neighbours in the bank classify rightly, by cosine of whitened features.

    Without whitening the few directions that hold nearly all of the variance decide, and say little of the classes.
    """
    voters, asked = whitened(bank[0], queries[0])
    return knn_predict(voters, bank[1], asked, classes, k=k) == queries[1]


def probe_right(bank: Labelled, queries: Labelled, classes: int) -> Tensor:
    """Return which queries (Q,) a logistic regression on the standardised features of the bank classifies rightly.

    A fifth of the bank chooses C, then all of it is fitted: the queries choose nothing, and their share is no better than
    what other images would give.
    """
    features, labels = bank
    # Not every fifth: where the classes take turns, a stride would miss some.
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    held, kept = order[: len(order) // HELD_OUT], order[len(order) // HELD_OUT :]
    if len(torch.unique(labels)) < 2:
        return labels[0] == queries[1]
    strength = FALLBACK
    if len(held) and len(torch.unique(labels[kept])) > 1:
        train, val = ((features[part], labels[part]) for part in (kept, held))
        strength = fit_logistic(train, val, classes, strengths=STRENGTHS).strength
    fit = fit_logistic(bank, bank, classes, strengths=(strength,))  # a single one: nothing is left to choose
    return fit.predict(queries[0]).argmax(dim=1) == queries[1]
