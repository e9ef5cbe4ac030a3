"""A class for each pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch

from mae.config.choices import Choices, Machine, multiple, rounded
from mae.config.choosing.pretraining import choose_pace
from mae.config.schema import protocols
from mae.config.schema.data import SegmentationFolder
from mae.config.schema.roots import FinetuneConfig
from mae.data.datamodule import ImageData
from mae.data.open_splits import open_splits
from mae.data.segmentation.mask_inspection import MaskInspection, open_masks
from mae.data.splits import Splits
from mae.downstream.baselines import start_name
from mae.downstream.labelled_data import Labelled
from mae.downstream.starting_weights import head_seed
from mae.downstream.tasks.segmentation_scoring import score_segmenter
from mae.downstream.tasks.task import Scored, Task
from mae.models.backbones.backbone import Backbone
from mae.models.classifier import Classifier
from mae.models.segmenter import Segmenter
from mae.report.tables import Row, Table
from mae.run.builders import build_data
from mae.run.setting import Setting
from mae.training.optimization import Optimization
from mae.training.segmenting import SegmentationModule
from mae.training.summary import Rows


class Segmentation(Task[SegmentationModule]):
    """Neck and head say which of K classes each pixel is of; the encoder learns with them, unless it is frozen."""

    compared = ("miou", "pixel_accuracy")
    evaluation_batch = 16

    @property
    def options(self) -> protocols.Segmentation:
        """The config group ``task``."""
        assert isinstance(self.config.task, protocols.Segmentation)
        return self.config.task

    @property
    def frozen(self) -> bool:
        """Whether the encoder stays as it is."""
        return isinstance(self.config.protocol, protocols.Dense) and self.config.protocol.frozen

    @property
    def named(self) -> Mapping[str, str]:
        """The task."""
        return {"task": "segmentation"}

    def check_protocol(self) -> None:
        """Raise a ValueError where the protocol is for classes of images."""
        if not isinstance(self.config.protocol, protocols.Dense):
            raise ValueError(
                f"protocol={self.config.protocol.name} is for classes of images, and task=segmentation takes protocol=dense: "
                f"leave it out; protocol.frozen=true keeps the encoder as it is"
            )

    def open(self, setting: Setting[FinetuneConfig]) -> Labelled:
        """Open images with masks, look at the masks, and name the classes in them."""
        for key in ("label_fraction", "labels_per_class"):
            if getattr(self.config, key) is not None:
                raise ValueError(
                    f"{key}={getattr(self.config, key)} draws labelled images by their class, and masks have many: leave it out"
                )
        splits, masks = self._open_masks(setting)
        choices = setting.choices
        choices.fill("data.classes", list(masks.classes), f"the ids in {masks.count:,} training masks")
        choices.fill("data.min_scale", 0.25, "a crop holds half of each side, or more")
        return Labelled(splits, masks.classes, str(masks))

    def open_to_score(self, setting: Setting[FinetuneConfig], classes: Sequence[str]) -> Labelled:
        """Open images with masks, whose ids are the numbers of the segmenter's classes."""
        if isinstance(self.config.data, SegmentationFolder):
            self.config.data.classes = list(classes)
        splits, masks = self._open_masks(setting)
        return Labelled(splits, masks.classes, str(masks))

    def _open_masks(self, setting: Setting[FinetuneConfig]) -> tuple[Splits, MaskInspection]:
        return open_masks(open_splits(**self.config.data.model_dump(), run_dir=setting.folder.path))

    def choose(self, setting: Setting[FinetuneConfig], count: int, pretrained: bool) -> None:
        """Choose batch size, epochs, learning rate and baselines for ``count`` images with masks."""
        choose_segmentation(setting.choices, count, setting.machine, setting.shares, pretrained)

    def build_data(self, setting: Setting[FinetuneConfig], splits: Splits, encoder: Backbone) -> ImageData:
        """Return batches of images and their masks."""
        return build_data(setting, splits, encoder, masks=True)

    def build_model(self, encoder: Backbone, classes: int) -> Segmenter:
        """Put neck and head on an encoder."""
        torch.manual_seed(head_seed(self.config.seed))
        options = self.options
        return Segmenter(
            encoder,
            classes,
            neck=options.neck,
            neck_width=options.neck_width,
            width=options.width,
            tokens=options.tokens,
            token_width=options.token_width,
            frozen=self.frozen,
        )

    def build_module(
        self, model: Classifier | Segmenter, classes: tuple[str, ...], optimization: Optimization | None = None
    ) -> SegmentationModule:
        """Return what trains and scores a segmenter."""
        assert isinstance(model, Segmenter)
        return SegmentationModule(
            model, self.options.model_dump(), classes, optimization=optimization, seed=self.config.seed
        )

    def rows(self, module: SegmentationModule) -> Rows:
        """Say what stands on the encoder."""
        neck = type(module.model.neck).__name__
        return [("neck", f"{neck} to {self.options.neck_width} channels, then a semantic FPN head")]

    def score(
        self, trainer: L.Trainer, module: SegmentationModule, data: ImageData, folder: Path, weights: Path
    ) -> Scored | None:
        """Segment every image of the split once; write per_class.csv and a picture."""
        return score_segmenter(trainer, module, data, folder, weights)

    def compare(self, results: Mapping[str, Any], scored: Scored, pretrained: bool) -> Table:
        """Return the run's figures beside its baselines."""

        def row(name: str, miou: float, accuracy: float, *, ours: bool = False) -> Row:
            return Row((name, f"{miou:.1%}", f"{accuracy:.1%}"), ours=ours)

        start = "pretrained" if pretrained else "from scratch"
        rows = [row(start, scored.figure("miou"), scored.figure("pixel_accuracy"), ours=True)]
        if "random_miou" in results:
            rows.append(row(start_name(False, self.frozen), results["random_miou"], results["random_pixel_accuracy"]))
        rows.append(row("always the commonest class", scored.trivial["miou"], scored.trivial["pixel_accuracy"]))
        note = f"On {scored.images:,} {scored.split} images, at the size the model sees."
        return Table("Beside its baselines", ("segmentation", "mean IoU", "pixel accuracy"), rows, note)

    def verdicts(self, results: Mapping[str, Any], scored: Scored) -> list[str]:
        """Return how good the segmenter is, beside the same network from random weights."""
        name = "test" if scored.split == "test" else "validation"
        beside = f"from random weights {results['random_miou']:.1%}; " if "random_miou" in results else ""
        return [
            f"Segmentation, {results['labelled_images']:,} images with masks: {name} mean IoU {scored.figure('miou'):.1%}, pixel "
            f"accuracy {scored.figure('pixel_accuracy'):.1%}; {beside}always naming the commonest class would score a mean IoU "
            f"of {scored.trivial['miou']:.1%}."
        ]


def choose_segmentation(
    choices: Choices[FinetuneConfig], count: int, machine: Machine, shares: int, pretrained: bool
) -> None:
    """Choose batch size, epochs and learning rate for ``count`` images with masks; ``shares`` divides the batch."""
    most = 16 if machine.accelerated else 8
    batch = choices.fill(
        "batch_size", multiple(min(count, most), shares), f"{most} images at most, each full of labels"
    )
    wanted = 400_000 if machine.accelerated else 4_000
    epochs = rounded(wanted / count, 20, 200)
    epochs = choices.fill("epochs", epochs, f"{wanted:,} images seen, within 20 to 200 epochs")
    rate = 1e-3
    choices.fill("optim.base_lr", float(f"{rate * 256 / batch:.2g}"), f"a rate of {rate:g}")
    choose_pace(choices, epochs)
    choices.fill(
        "baselines", pretrained, "a number alone means little" if pretrained else "the run starts at random itself"
    )
