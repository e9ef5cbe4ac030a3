"""A folder of classes and its frozen features: of a pretraining run, of its encoder before training, and raw pixels."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mae.checkpoints.load import load_encoder
from mae.config.reading import read_config
from mae.config.schema.roots import PretrainConfig
from mae.data.datamodule import ImageData
from mae.data.few_labels import few_labels
from mae.data.inspection import inspect_images
from mae.data.open_splits import open_splits
from mae.data.source import Source, Subset, drawn, thinned
from mae.data.splits import Splits
from mae.data.statistics import pixel_tensors
from mae.evaluation.frozen.features import extract_features, frozen, raw_pixels, whitened
from mae.evaluation.frozen.few_shot import Budget
from mae.evaluation.frozen.knn import Labelled, knn_predict, knn_sweep
from mae.evaluation.frozen.logistic import fit_logistic
from mae.models.backbones.backbone import Backbone
from mae.run.folder import RunFolder
from mae.run.pretrain_parts import build_untrained

KINDS = ("pretrained", "random", "pixels")
UNLABELLED = 2000
"""Training images, drawn at random, that whitenings are fitted on, alike for all kinds."""
BATCH = 256


class FrozenSet:
    """Images of a folder by three kinds of features, each image encoded once.

    Args:
        folder: train/ and, where they exist, val/ and test/ of classes; or classes alone.
        run: A finished pretraining run.
        labelled: Indices of the training images that may be learned from.
        most: Images of the test and of validation, at most; None for all.
    """

    def __init__(self, folder: Path, run: Path, labelled: np.ndarray, most: int | None = None) -> None:
        self.splits = open_set(folder)
        self.indices, self.most = np.union1d(labelled, drawn(len(self.splits.train), UNLABELLED)), most
        device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        self.device = device or torch.device("cpu")
        trained = load_encoder(run / "encoder")
        stored = RunFolder(run, resume=True).stored_config
        assert stored is not None, "a finished run has its config"
        untrained = build_untrained(read_config(PretrainConfig, stored))
        self.encoders: dict[str, Backbone] = {"pretrained": trained, "random": untrained}
        assert trained.pixel_mean is not None and trained.pixel_std is not None, "written by a pretraining run"
        self.mean, self.std = (part.to(self.device) for part in pixel_tensors(trained.pixel_mean, trained.pixel_std))
        batch = min(BATCH, len(self.splits.train))
        self.data = ImageData(
            self.splits,
            image_size=trained.image_size,
            channels=trained.in_channels,
            effective_batch=batch,
            micro_batch=batch,
            min_scale=1.0,
            flip=False,
            num_workers=0,
            seed=0,
            bits=inspect_images(self.splits.train).bits,
        )
        self._encoded: dict[str, tuple[Labelled, Labelled, Labelled]] = {}

    @cached_property
    def scored(self) -> Source:
        """The test images, or those of validation where the data have no others."""
        return self.data.scored[1]

    def probe(self, kind: str, labelled: np.ndarray) -> Tensor:
        """Return which scored images (N,) a logistic regression on ``labelled`` has right; validation chooses its strength."""
        train, val, scored = self._features(kind, labelled)
        fit = fit_logistic(train, val, len(self.splits.train.classes))
        return fit.predict(scored[0]).argmax(dim=1) == scored[1]

    def knn(self, kind: str, labelled: np.ndarray) -> Tensor:
        """Return which scored images (N,) the neighbours among ``labelled`` have right, whitened; validation chooses k."""
        train, val, scored = self._features(kind, labelled)
        classes = len(self.splits.train.classes)
        _, bank, choosing, queries = whitened(self._encode(kind)[0][0], train[0], val[0], scored[0])
        labels = train[1]
        best = max(knn_sweep((bank, labels), (choosing, val[1]), classes), key=lambda score: score.accuracy)
        found = knn_predict(bank, labels, queries, classes, k=best.k, temperature=best.temperature)
        return found == scored[1]

    def _features(self, kind: str, labelled: np.ndarray) -> tuple[Labelled, Labelled, Labelled]:
        (features, labels), val, scored = self._encode(kind)
        chosen = np.searchsorted(self.indices, labelled)
        return (features[chosen], labels[chosen]), val, scored

    def _encode(self, kind: str) -> tuple[Labelled, Labelled, Labelled]:
        if kind not in self._encoded:
            features: Callable[[Tensor], Tensor] = raw_pixels
            if kind in self.encoders:
                features = frozen(self.encoders[kind].to(self.device))
            train = Subset(self.splits.train, self.indices)
            first, val = self._extract(train, features), self._extract(self._thinned(self.splits.val), features)
            scored = val if self.scored is self.splits.val else self._extract(self._thinned(self.scored), features)
            self._encoded[kind] = first, val, scored
        return self._encoded[kind]

    def _thinned(self, source: Source) -> Source:
        return source if self.most is None else thinned(source, self.most)

    def _extract(self, source: Source, features: Callable[[Tensor], Tensor]) -> Labelled:
        return extract_features(self.data.evaluation_loader(source), features, self.mean, self.std)


def open_set(folder: Path) -> Splits:
    """Open a folder of classes.

    Raises:
        ValueError: It holds none, or not two.
        FileNotFoundError: There is no such folder.
    """
    splits = open_splits("image_folder", root=str(folder))
    if len(splits.train.classes) < 2:
        raise ValueError(f"{folder} has one class, {splits.train.classes[0]!r}: two or more are needed")
    return splits


def draw(splits: Splits, budget: Budget, seed: int) -> np.ndarray:
    """Return the indices of the training images that a run with this budget and seed learns from.

    Raises:
        ValueError: A class has fewer images.
    """
    train = splits.train
    assert train.labels is not None, "classes are labels"
    return few_labels(train.labels, train.classes, seed, budget.per_class, budget.fraction)


def parse_budget(text: str) -> Budget:
    """Return what ``5`` (a class), ``10%`` or ``100%`` asks for.

    Raises:
        ValueError: It is neither.
    """
    number = text.strip().removesuffix("%")
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if text.strip().endswith("%") and 0 < value <= 100:
        return Budget() if value == 100 else Budget(fraction=value / 100)
    if value >= 1 and value.is_integer() and not text.strip().endswith("%"):
        return Budget(per_class=int(value))
    raise ValueError(f"--labels {text} is neither a number a class, such as 5, nor a share of all, such as 10%")
