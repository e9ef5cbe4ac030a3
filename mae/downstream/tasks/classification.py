"""One class for each image."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import nn

from mae.config.choosing.finetuning import choose_baselines, choose_finetuning
from mae.config.schema.protocols import Finetune, LinearProbe, Probe
from mae.config.schema.roots import FinetuneConfig
from mae.data.datamodule import ImageData
from mae.data.splits import Splits
from mae.downstream.baselines import PIXELS_FILE, classify_pixels, right_pairs, start_name
from mae.downstream.labelled_data import Labelled
from mae.downstream.tasks.class_labels import labelled_splits, match_classes, open_images
from mae.downstream.tasks.classification_scoring import score_classifier
from mae.downstream.tasks.classifiers import CLASSIFIERS, build_classifier
from mae.downstream.tasks.head_start import start_head
from mae.downstream.tasks.task import Scored, Task
from mae.evaluation.intervals import accuracy_estimate
from mae.evaluation.paired import Difference, paired_difference
from mae.evaluation.verdict import LONGER, beside, opening
from mae.models.backbones.backbone import Backbone
from mae.models.classifier import Classifier
from mae.models.cost import multiply_adds
from mae.models.segmenter import Segmenter
from mae.report.tables import Row, Table
from mae.run.builders import build_data
from mae.run.setting import Setting
from mae.training.classifying import ClassificationModule
from mae.training.mixing import BatchAugmentation
from mae.training.optimization import Optimization
from mae.training.summary import Rows


class Classification(Task[ClassificationModule]):
    """A head says which of K classes an image is of; the protocol says which head, and how much of the encoder learns."""

    compared = ("top1",)
    evaluation_batch = 256
    without_network = "raw pixels"

    @property
    def named(self) -> Mapping[str, str]:
        """The protocol."""
        return {"protocol": self.config.protocol.name}

    def check_protocol(self) -> None:
        """Raise a ValueError where the protocol is for another task."""
        protocol = self.config.protocol
        if protocol.trains and protocol.name not in CLASSIFIERS:
            raise ValueError(
                f"protocol={protocol.name} belongs to task=segmentation: give that too, or choose one of "
                f"{', '.join((*CLASSIFIERS, 'features'))}"
            )

    def open(self, setting: Setting[FinetuneConfig]) -> Labelled:
        """Open the data with the draw of labels that the config asks for."""
        return _labelled(labelled_splits(self.config, setting.folder.path))

    def open_to_score(self, setting: Setting[FinetuneConfig], classes: Sequence[str]) -> Labelled:
        """Open the data; every class in them must be one of the classifier's."""
        splits = open_images(self.config, setting.folder.path)
        match_classes(splits.train.classes, classes, self.config.data.source)
        return _labelled(splits)

    def choose(
        self, setting: Setting[FinetuneConfig], encoder: Backbone, count: int, validated: int, pretrained: bool
    ) -> None:
        """Choose batch size, epochs, learning rate, augmentation and baselines for ``count`` labelled images."""
        cost = multiply_adds(encoder, torch.zeros(1, encoder.in_channels, *encoder.image_size))
        sizes = {"cost": cost, "width": encoder.width, "validated": validated}
        choose_finetuning(setting.choices, count, setting.machine, setting.shares, **sizes)
        choose_baselines(setting.choices, count, setting.machine)

    def check_batches(self, setting: Setting[FinetuneConfig], encoder: Backbone, count: int) -> None:
        """Raise a ValueError where a BatchNorm would see one image, or pairs are mixed of an odd number."""
        protocol, size, micro = self.config.protocol, self.config.batch_size, setting.micro_batch
        normalised = isinstance(protocol, Probe) and protocol.batch_norm
        if micro < 2 and (normalised or (isinstance(protocol, LinearProbe) and protocol.sweep)):
            raise ValueError(f"batch_size={size} gives a device one image, and the probe's BatchNorm needs two or more")
        if micro < 2 and isinstance(protocol, Finetune) and protocol.head_norm == "batch":
            raise ValueError(
                f"batch_size={size} gives a device one image, and protocol.head_norm=batch needs two or more: choose "
                f"batch_size={2 * setting.shares}, or protocol.head_norm=none"
            )
        if micro < 2 and not protocol.probes and any(isinstance(part, nn.BatchNorm2d) for part in encoder.modules()):
            raise ValueError(
                f"batch_size={size} gives a device one image, and the BatchNorm of {encoder.config['name']} needs two or more"
            )
        mixes = {"mixup": protocol.mixup, "cutmix": protocol.cutmix} if isinstance(protocol, Finetune) else {}
        mixed = [key for key, alpha in mixes.items() if alpha]
        if mixed and micro % 2:
            even = size + setting.shares if size + setting.shares <= count else size - setting.shares
            raise ValueError(
                f"batch_size={size} gives a device {micro} images at a time, and protocol.{mixed[0]}={mixes[mixed[0]]} mixes "
                f"pairs: choose batch_size={even}, or protocol.{mixed[0]}=0"
            )

    def build_data(self, setting: Setting[FinetuneConfig], splits: Splits, encoder: Backbone) -> ImageData:
        """Return batches of images and their classes."""
        protocol = self.config.protocol
        magnitude = protocol.rand_augment if isinstance(protocol, Finetune) else 0
        return build_data(setting, splits, encoder, rand_augment=magnitude)

    def build_model(self, encoder: Backbone, classes: int) -> Classifier:
        """Put the protocol's head on an encoder, and freeze what it freezes."""
        return build_classifier(self.config.protocol, encoder, classes, self.config.seed)

    def build_module(
        self, model: Classifier | Segmenter, classes: tuple[str, ...], optimization: Optimization | None = None
    ) -> ClassificationModule:
        """Return what trains and scores a classifier."""
        assert isinstance(model, Classifier)
        protocol = self.config.protocol
        augmentation = None
        if optimization is not None and isinstance(protocol, Finetune):
            augmentation = BatchAugmentation(
                len(classes),
                mixup=protocol.mixup,
                cutmix=protocol.cutmix,
                erasing=protocol.erasing,
                label_smoothing=protocol.label_smoothing,
            )
        return ClassificationModule(
            model,
            protocol.model_dump(),
            classes,
            optimization=optimization,
            augmentation=augmentation,
            seed=self.config.seed,
        )

    def begin(
        self, setting: Setting[FinetuneConfig], trainer: L.Trainer, module: ClassificationModule, data: ImageData
    ) -> None:
        """Let the head of a fine-tuning begin as the protocol says."""
        if isinstance(self.config.protocol, Finetune):
            start_head(self.config.protocol, setting, trainer, module, data)

    def rows(self, module: ClassificationModule) -> Rows:
        """Say where layer-wise decay is not in force."""
        protocol, encoder = self.config.protocol, module.model.encoder
        if isinstance(protocol, Finetune) and protocol.layer_decay != 1 and not encoder.depth:
            return [("layer decay", f"not in force: {encoder.config['name']} has no blocks to tell apart")]
        return []

    def score(
        self, trainer: L.Trainer, module: ClassificationModule, data: ImageData, folder: Path, weights: Path
    ) -> Scored | None:
        """Predict every image of the split once; write predictions.csv and per_class.csv."""
        known = match_classes(data.splits.train.classes, module.classes, self.config.data.source)
        return score_classifier(trainer, module, data, folder, weights, known)

    def label_results(self, splits: Splits) -> dict[str, Any]:
        """Return how many labels there are, and what share of them is of one class."""
        labels = splits.train.labels
        assert labels is not None, "labelled_splits() refuses data without labels"
        return {"labelled_images": len(labels), "largest_class_share": float(np.bincount(labels).max() / len(labels))}

    def measure_without_network(
        self, module: ClassificationModule, data: ImageData, folder: Path | None
    ) -> dict[str, float]:
        """Return what a logistic regression on raw pixels scores; write what it predicts."""
        path = None if folder is None else folder / PIXELS_FILE
        return classify_pixels(data, module.mean, module.std, module.classes, path)

    def differences(
        self, module: ClassificationModule, folder: Path, baselines: Collection[str]
    ) -> dict[str, Difference]:
        """Return by how much the accuracy is above those of the baselines."""
        pairs = {name: right_pairs(folder, name) for name in baselines}
        return {name: paired_difference(*pair) for name, pair in pairs.items() if pair is not None}

    def compare(self, results: Mapping[str, Any], scored: Scored, pretrained: bool) -> Table:
        """Return the run's accuracy beside its baselines."""
        protocol = self.config.protocol

        def row(name: str, key: str) -> Row:
            figure = accuracy_estimate(results[f"{key}_top1"], results.get(f"{key}_images", scored.images))
            return Row((name, str(figure), str(scored.difference(results, key) or "")))

        ours = accuracy_estimate(scored.figure("top1"), scored.images)
        rows = [Row((start_name(pretrained, protocol.probes), str(ours), ""), ours=True)]
        if "random_top1" in results:
            rows.append(row(start_name(False, protocol.probes), "random"))
        if "pixels_top1" in results:
            used, images = results["pixels_labelled_images"], results["pixels_images"]
            fewer = f", {used:,} labels" if used < results["labelled_images"] else ""
            fewer += f", {images:,} images" if images < scored.images else ""
            rows.append(row(f"raw pixels, logistic regression{fewer}", "pixels"))
        rows.append(Row(("always the commonest class", f"{results['largest_class_share']:.1%}", "")))
        note = (
            f"Accuracy on {scored.images:,} {scored.split} images, with the same labels and protocol, and by how much the first "
            f"line is above each. 95% intervals over the images; another draw of labels or seed is not in them (seed=0,1,2)."
        )
        return Table("Beside its baselines", (protocol.name, "top-1", "ahead by"), rows, note)

    def verdicts(self, results: Mapping[str, Any], scored: Scored) -> list[str]:
        """Return the word on pretraining, what raw pixels say, and how good the classifier is."""
        name = "test" if scored.split == "test" else "validation"
        what = f"{self.config.protocol.name} on {results['labelled_images']:,} labelled images"
        reached = f"{name} accuracy {accuracy_estimate(scored.figure('top1'), scored.images)}"
        start = "from random weights" if self.config.protocol.probes else "from scratch"
        random, pixels = (scored.difference(results, baseline) for baseline in ("random", "pixels"))
        if random is not None:
            other = accuracy_estimate(results["random_top1"], scored.images)
            text = f"{what}, {reached}, {start} {other}, {random} on {scored.images:,} images."
            sentences = [opening(random.word, text)]
        else:
            sentences = [f"{what}: {reached} on {scored.images:,} images."]
        if pixels is not None:
            figure = accuracy_estimate(results["pixels_top1"], results["pixels_images"])
            sentences.append(beside("logistic regression on raw pixels", figure, pixels))
        share = results.get("start_share")
        if share == 1:
            sentences.append(
                "No epoch was better on validation, by more than a standard error, than the head that was solved for on frozen "
                "features, a linear probe, which is therefore what was scored: train longer, or at another rate (optim.base_lr)."
            )
        elif share:
            sentences.append(
                f"The weights are {share:.0%} those that training began with and {1 - share:.0%} those of its best epoch: "
                f"farther from the start none was better on validation by more than a standard error."
            )
        sentences.append(f"Always naming the commonest class would score about {results['largest_class_share']:.1%}.")
        if random is not None and random.word != "helped":
            sentences.append(f"{LONGER} Or try other learning rates here (optim.base_lr).")
        return sentences


def _labelled(splits: Splits) -> Labelled:
    return Labelled(splits, splits.train.classes, f"{len(splits.train.classes)} classes")
