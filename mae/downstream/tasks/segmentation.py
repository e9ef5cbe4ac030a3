"""A class for each pixel."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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
from mae.downstream.baselines import BASELINE, start_name
from mae.downstream.labelled_data import Labelled
from mae.downstream.starting_weights import head_seed
from mae.downstream.tasks.segmentation_scoring import IMAGES_FILE, score_segmenter
from mae.downstream.tasks.task import Scored, Task
from mae.evaluation.intervals import Estimate
from mae.evaluation.paired import Difference, resampled_difference
from mae.evaluation.segmentation_scores import mean_iou, read_image_counts
from mae.evaluation.verdict import LONGER, opening
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

    def choose(
        self, setting: Setting[FinetuneConfig], encoder: Backbone, count: int, validated: int, pretrained: bool
    ) -> None:
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
        """Segment every image of the split once; write per_class.csv, per_image.csv and a picture."""
        return score_segmenter(trainer, module, data, folder, weights)

    def differences(
        self, module: SegmentationModule, folder: Path, baselines: Collection[str]
    ) -> dict[str, Difference]:
        """Return by how much the mean IoU is above that of the same network from random weights."""
        paths = folder / IMAGES_FILE, folder / BASELINE / IMAGES_FILE
        if "random" not in baselines or not all(path.is_file() for path in paths):
            return {}
        ours, other = (read_image_counts(path, module.classes) for path in paths)
        names = [name for name in ours if name in other]
        if not names:
            return {}
        first, second = (torch.stack([counts[name] for name in names]) for counts in (ours, other))
        return {"random": resampled_difference(first, second, mean_iou)}

    def compare(self, results: Mapping[str, Any], scored: Scored, pretrained: bool) -> Table:
        """Return the run's figures beside its baselines."""

        def row(name: str, prefix: str, *, ours: bool = False) -> Row:
            figures = (str(_estimate(results, f"{prefix}_{figure}")) for figure in self.compared)
            return Row((name, *figures, "" if ours else str(scored.difference(results, prefix) or "")), ours=ours)

        rows = [row("pretrained" if pretrained else "from scratch", scored.split, ours=True)]
        if "random_miou" in results:
            rows.append(row(start_name(False, self.frozen), "random"))
        trivial = (f"{scored.trivial[figure]:.1%}" for figure in self.compared)
        rows.append(Row(("always the commonest class", *trivial, "")))
        note = (
            f"On {scored.images:,} {scored.split} images, at the size the model sees; 95% intervals over the images, by bootstrap. "
            f"Another seed is not in them."
        )
        head = ("segmentation", "mean IoU", "pixel accuracy", "ahead by, in mean IoU")
        return Table("Beside its baselines", head, rows, note)

    def verdicts(self, results: Mapping[str, Any], scored: Scored) -> list[str]:
        """Return the word on pretraining, and how good the segmenter is."""
        name = "test" if scored.split == "test" else "validation"
        what = f"segmentation, {results['labelled_images']:,} images with masks"
        miou, accuracy = (_estimate(results, f"{scored.split}_{figure}") for figure in self.compared)
        reached = f"{name} mean IoU {miou}"
        random = scored.difference(results, "random")
        if random is not None:
            start = "from random weights" if self.frozen else "from scratch"
            text = (
                f"{what}: {reached}, {start} {_estimate(results, 'random_miou')}, {random} on {scored.images:,} images."
            )
            sentences = [opening(random.word, text)]
        else:
            sentences = [f"{what.capitalize()}: {reached} on {scored.images:,} images."]
        sentences.append(
            f"Pixel accuracy {accuracy}; always naming the commonest class would score a mean IoU of {scored.trivial['miou']:.1%}."
        )
        return [*sentences, LONGER] if random is not None and random.word != "helped" else sentences


def _estimate(results: Mapping[str, Any], key: str) -> Estimate | str:
    """Return a figure with its interval; runs of earlier versions kept none."""
    interval = results.get(f"{key}_interval")
    return Estimate(results[key], *interval) if interval else f"{results[key]:.1%}"


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
