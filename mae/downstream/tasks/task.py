"""What a task is: everything in which classification and segmentation differ."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import lightning as L

from mae.config.schema.roots import FinetuneConfig
from mae.data.datamodule import ImageData
from mae.data.splits import Splits
from mae.downstream.labelled_data import Labelled
from mae.evaluation.paired import Difference
from mae.models.backbones.backbone import Backbone
from mae.models.classifier import Classifier
from mae.models.segmenter import Segmenter
from mae.report.page import Figure
from mae.report.tables import Table
from mae.run.setting import Setting
from mae.training.downstream import DownstreamModule
from mae.training.optimization import Optimization
from mae.training.summary import Rows

M = TypeVar("M", bound=DownstreamModule)


@dataclass(frozen=True)
class Scored:
    """What was measured on the split that has the last word.

    Attributes:
        split: ``test``, or ``val`` where the data have no test split.
        results: Final numbers by plain names, which begin with the split's.
        sentence: What a scored model is worth, in words.
        tables: Beside that of the baselines.
        figures: For the report.
        trivial: Figures of what would be scored without looking at an image, by the names of ``Task.compared``.
    """

    split: str
    results: Mapping[str, Any]
    sentence: str
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    trivial: Mapping[str, float] = field(default_factory=dict)

    @property
    def images(self) -> int:
        """How many images were scored."""
        return int(self.results[f"{self.split}_images"])

    def figure(self, name: str) -> float:
        """Return a number by its name without the split's."""
        return float(self.results[f"{self.split}_{name}"])

    def difference(self, results: Mapping[str, Any], baseline: str) -> Difference | None:
        """Return by how much the run is above a baseline, from its results; None where nothing was paired."""
        plain = results.get("differences", {}).get(baseline)
        return None if plain is None else Difference.read(plain, results.get(f"{baseline}_images", self.images))


class Task(ABC, Generic[M]):
    """What is predicted, and all that follows from it; the steps that are the same for every task stand outside.

    Args:
        config: Of the run; values that are null are chosen meanwhile.

    Attributes:
        compared: Figures that stand beside those of the baselines; the first is called ``val_...`` and decides between epochs.
        evaluation_batch: Images at once, where nothing is trained.
        without_network: The baseline that needs no network, in words; None where there is none.
    """

    compared: ClassVar[tuple[str, ...]]
    evaluation_batch: ClassVar[int]
    without_network: ClassVar[str | None] = None

    def __init__(self, config: FinetuneConfig) -> None:
        self.config = config

    @property
    def monitored(self) -> str:
        """The metric on validation that decides between epochs; more is better."""
        return f"val_{self.compared[0]}"

    @property
    @abstractmethod
    def named(self) -> Mapping[str, str]:
        """How results.json and a checkpoint tell the task: ``protocol``, or ``task``, with its name."""

    @abstractmethod
    def check_protocol(self) -> None:
        """Raise a ValueError where the protocol is not one for this task."""

    @abstractmethod
    def open(self, setting: Setting[FinetuneConfig]) -> Labelled:
        """Open the data with the labels that the config asks for, and choose what these decide.

        Raises:
            ValueError: There are no labels of this task, or fewer than asked for.
            FileNotFoundError: The folder does not exist.
        """

    @abstractmethod
    def open_to_score(self, setting: Setting[FinetuneConfig], classes: Sequence[str]) -> Labelled:
        """Open the data to score a model of these classes on.

        Raises:
            ValueError: There are no labels of this task, or one that the model does not know.
            FileNotFoundError: The folder does not exist.
        """

    @abstractmethod
    def choose(
        self, setting: Setting[FinetuneConfig], encoder: Backbone, count: int, validated: int, pretrained: bool
    ) -> None:
        """Choose batch size, epochs, learning rate and baselines for ``count`` labelled images, ``validated`` of validation."""

    def check_batches(self, setting: Setting[FinetuneConfig], encoder: Backbone, count: int) -> None:
        """Raise a ValueError where the protocol cannot work with the batches of a device; ``count`` images are there."""

    @abstractmethod
    def build_data(self, setting: Setting[FinetuneConfig], splits: Splits, encoder: Backbone) -> ImageData:
        """Return the batches."""

    @abstractmethod
    def build_model(self, encoder: Backbone, classes: int) -> Classifier | Segmenter:
        """Put on the encoder what predicts K classes; its weights follow from the seed alone, whatever the encoder's.

        Raises:
            ValueError: An option does not fit the encoder.
        """

    @abstractmethod
    def build_module(
        self, model: Classifier | Segmenter, classes: tuple[str, ...], optimization: Optimization | None = None
    ) -> M:
        """Return what trains and scores a model.

        Args:
            model: Of ``build_model``; the pixel statistics of its encoder are known.
            classes: Names of the K classes.
            optimization: Optimizer and schedule; None where nothing is trained.
        """

    def begin(self, setting: Setting[FinetuneConfig], trainer: L.Trainer, module: M, data: ImageData) -> None:
        """Give a model on the trainer's device what it is to begin with, before the first step of a run."""

    def rows(self, module: M) -> Rows:
        """Return what else a person reads in the summary of a run."""
        return []

    @abstractmethod
    def score(self, trainer: L.Trainer, module: M, data: ImageData, folder: Path, weights: Path) -> Scored | None:
        """Score the split that has the last word, once, with the weights of a checkpoint; write what it gives into a folder.

        Args:
            trainer: On any number of processes; each image counts once.
            module: Built as the checkpoint's.
            data: Its ``scored`` split is read.
            folder: Of the run.
            weights: The checkpoint.

        Returns:
            The scores; None on all processes but the first.
        """

    def label_results(self, splits: Splits) -> dict[str, Any]:
        """Return final numbers on the training labels."""
        return {"labelled_images": len(splits.train)}

    def measure_without_network(self, module: M, data: ImageData, folder: Path | None) -> dict[str, float]:
        """Return figures of baselines that need no network, by plain names; none where there is no such baseline.

        What they predict is written into the folder of the run, if one is given.
        """
        return {}

    @abstractmethod
    def differences(self, module: M, folder: Path, baselines: Collection[str]) -> dict[str, Difference]:
        """Return by how much a finished run is above its baselines in the first figure of ``compared``, paired over the images.

        Args:
            module: Of the run.
            folder: Of the run, with what it and its baselines predicted.
            baselines: ``random``, ``pixels`` or both.

        Returns:
            By baseline; those whose predictions an earlier version did not keep are left out.
        """

    @abstractmethod
    def compare(self, results: Mapping[str, Any], scored: Scored, pretrained: bool) -> Table:
        """Return the run's figures beside its baselines."""

    @abstractmethod
    def verdicts(self, results: Mapping[str, Any], scored: Scored) -> list[str]:
        """Return sentences on a result: first whether pretraining helped, in a word, where a baseline tells; and how good it is."""
