"""task=segmentation: prepare the training of a segmenter, or the evaluation of a finished one; run it, report it."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mae.checkpoints.format import Checkpoint
from mae.config.choices import Choices, Machine, multiple, rounded
from mae.config.choosing.images import choose_loading
from mae.config.choosing.model import choose_images_and_model
from mae.config.choosing.pretraining import choose_pace
from mae.config.composing import load_preset
from mae.config.schema.roots import FinetuneConfig
from mae.data.datamodule import ImageData
from mae.data.inspection import Inspection, inspect_images
from mae.data.open_splits import open_splits
from mae.data.segmentation.mask_inspection import MaskInspection, open_masks
from mae.data.source import Splits
from mae.data.statistics import unit_pixels
from mae.downstream.baselines import baseline_config, earlier_results
from mae.downstream.labelled_data import build_encoder, follow_checkpoint, open_checkpoint
from mae.evaluation.segmentation_scores import SegmentationScores, commonest, measure_segmentation
from mae.masking.seeds import HEAD, derive_seed
from mae.models.backbones.backbone import Backbone
from mae.models.cost import parameters
from mae.models.protocols import create_segmenter
from mae.models.segmenter import Segmenter
from mae.report.segmentation_pictures import iou_table, save_segmentations
from mae.report.tables import Row, Table
from mae.run.builders import build_data, build_optimization
from mae.run.run import Run
from mae.run.setting import Setting, open_setting
from mae.training.segmenting import SegmentationModule
from mae.training.summary import Rows, model_rows, optimization_rows

SHOWN = 6
"""Images in the picture of a run."""


def prepare_segmentation(config: FinetuneConfig, overrides: Sequence[str] = ()) -> Segmentation:
    """Check everything and build every part, before any work starts.

    Raises:
        ValueError: A value is wrong, a mask does not fit its image or holds what is no class, or things do not fit each other.
        FileNotFoundError: A folder or checkpoint does not exist.
    """
    setting = open_setting(config, "finetune", overrides)
    config = setting.config
    if config.protocol.name != "dense":
        raise ValueError(
            f"protocol={config['protocol']['name']} is for classes of images, and task=segmentation takes protocol=dense: leave it "
            f"out; protocol.frozen=true keeps the encoder as it is"
        )
    checkpoint = open_checkpoint(config)
    splits, look, masks = open_masked(setting, checkpoint)
    choose_segmentation(setting.choices, look.count, setting.machine, setting.shares, checkpoint is not None)

    encoder, report = build_encoder(config, checkpoint)
    if config.trainer.grad_checkpointing:
        encoder.set_grad_checkpointing()
    model = build_segmenter(config, encoder, len(masks.classes))
    data = build_data(setting, splits, encoder, masks=True)
    optimization = build_optimization(setting, encoder, data.steps_per_epoch, config.protocol.layer_decay)
    module = SegmentationModule(model, config.task, masks.classes, optimization=optimization, seed=config.seed)
    if config.trainer.compile:
        model.compile()
    trainer, progress = Run.build_trainer(setting, optimization.total_steps, "val_miou", "max")
    job = Segmentation(setting, data, module, trainer, progress, checkpoint is not None)
    rows: Rows = [
        ("data", f"{look}, {masks}; validation: {len(splits.val):,}, {splits.origin}"),
        ("weights", str(report) if report else "random"),
        *model_rows(encoder, model),
        ("neck", f"{type(model.neck).__name__} to {config['task']['neck_width']} channels, then a semantic FPN head"),
        *optimization_rows(optimization, model, config.optim.base_lr, config.batch_size, setting.micro_batch),
    ]
    job.show_summary("Segmentation", rows)
    return job


def open_masked(setting: Setting, checkpoint: Checkpoint | None) -> tuple[Splits, Inspection, MaskInspection]:
    """Open images with masks, and choose what follows from them and from the checkpoint: sizes, model, loading.

    Raises:
        ValueError: There are no masks, or one does not fit its image; or the data do not fit the checkpoint.
        FileNotFoundError: The folder does not exist.
    """
    config, choices = setting.config, setting.choices
    for key in ("label_fraction", "labels_per_class"):
        if config[key] is not None:
            raise ValueError(
                f"{key}={config[key]} draws labelled images by their class, and masks have many: leave it out"
            )
    splits, masks = open_masks(open_splits(config.data, setting.folder.path))
    choices.fill("data.classes", list(masks.classes), f"the ids in {masks.count:,} training masks")
    look = inspect_images(splits.train)
    if checkpoint is not None:
        follow_checkpoint(choices, checkpoint)
    else:
        choose_images_and_model(choices, look, setting.machine, load_preset)
    choices.fill("data.min_scale", 0.25, "a crop holds half of each side, or more")
    choose_loading(choices, look, setting.machine, setting.devices)
    return splits, look, masks


def choose_segmentation(choices: Choices, count: int, machine: Machine, shares: int, pretrained: bool) -> None:
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


def build_segmenter(config: FinetuneConfig, encoder: Backbone, classes: int) -> Segmenter:
    """Put neck and head on an encoder; their weights follow from the seed alone, whatever the encoder's."""
    torch.manual_seed(derive_seed(HEAD, config.seed))
    return create_segmenter(encoder, classes, config.task, frozen=config.protocol.frozen)


@dataclass
class Segmentation(Run):
    """The training of a segmenter, ready to go.

    Attributes:
        pretrained: Whether the encoder started from a checkpoint.
    """

    module: SegmentationModule
    pretrained: bool

    def run(self) -> Mapping[str, Any]:
        """Train, choose the best epoch on validation, score the split that has the last word; return the results."""
        self.fit()
        best, folder, config = (
            self.setting.folder.path / "checkpoints" / "best.ckpt",
            self.setting.folder.path,
            self.setting.config,
        )
        (validated,) = self.trainer.validate(
            self.module, datamodule=self.data, ckpt_path=best, weights_only=True, verbose=False
        )
        self.trainer.test(self.module, datamodule=self.data, ckpt_path=best, weights_only=True, verbose=False)
        split, source = self.data.scored
        scores, trivial = measure_segmentation(self.module.scored), commonest(self.module.scored)
        results: dict[str, Any] = {
            "stage": "finetune",
            "task": "segmentation",
            **validated,
            **scored_results(split, scores),
            f"{split}_miou_commonest": trivial.mean_iou,
            f"{split}_images": len(source),
            "epochs": config.epochs,
            "labelled_images": len(self.data.splits.train),
            "parameters": parameters(self.module.model),
        }
        results |= self.run_baseline(split)
        if not self.trainer.is_global_zero:
            return {}
        write_classes(folder / "per_class.csv", scores, self.module.classes)
        draw(self.module, self.data, folder / "pictures" / "segmentations.png")
        beside = beside_table(results, split, self.pretrained, config.protocol.frozen, trivial.pixel_accuracy)
        return self.finish(
            self.module.model.encoder,
            results,
            [verdict(results, split)],
            tables=[beside, iou_table(scores, self.module.classes)],
        )

    def run_baseline(self, split: str) -> dict[str, float]:
        """Return the figures of the same network from random weights, where the config asks for them."""
        config = self.setting.config
        if not (config.baselines and self.pretrained):
            return {}
        self.say("measuring the baseline: random weights", style="dim")
        other = baseline_config(self.setting, self.module.model.encoder)
        results = (earlier_results(other) if config.resume else None) or prepare_segmentation(other).run()
        names = ("miou", "pixel_accuracy")
        return {f"random_{name}": results[f"{split}_{name}"] for name in names} if results else {}


def scored_results(split: str, scores: SegmentationScores) -> dict[str, float]:
    """Return final numbers by plain names."""
    return {
        f"{split}_miou": scores.mean_iou,
        f"{split}_pixel_accuracy": scores.pixel_accuracy,
        f"{split}_mean_accuracy": scores.mean_accuracy,
    }


def write_classes(path: Path, scores: SegmentationScores, classes: Sequence[str]) -> None:
    """Write pixels and IoU of each class as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["class", "pixels", "iou"])
        writer.writerows(zip(classes, scores.pixels, scores.iou, strict=True))


@torch.no_grad()
def draw(module: SegmentationModule, data: ImageData, path: Path) -> None:
    """Draw images of the split that is scored, evenly spread, with truth and prediction."""
    module.eval()
    batches = list(data.evaluation_loader(data.scored[1], most=SHOWN))
    predicted = [module(batch.images.to(module.device)).argmax(dim=1).cpu() for batch in batches]
    images = unit_pixels(torch.cat([batch.images for batch in batches]))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_segmentations(
        images, torch.cat([batch.labels for batch in batches]), torch.cat(predicted), module.classes, path
    )


def beside_table(
    results: Mapping[str, Any], split: str, pretrained: bool, frozen: bool, trivial_accuracy: float
) -> Table:
    """Return the run's figures beside its baselines."""

    def row(name: str, miou: float, accuracy: float, *, ours: bool = False) -> Row:
        return Row((name, f"{miou:.1%}", f"{accuracy:.1%}"), ours=ours)

    start = "pretrained" if pretrained else "from scratch"
    rows = [row(start, results[f"{split}_miou"], results[f"{split}_pixel_accuracy"], ours=True)]
    if "random_miou" in results:
        other = "the same encoder, random weights" if frozen else "the same network, from scratch"
        rows.append(row(other, results["random_miou"], results["random_pixel_accuracy"]))
    rows.append(row("always the commonest class", results[f"{split}_miou_commonest"], trivial_accuracy))
    note = f"On {results[f'{split}_images']:,} {split} images, at the size the model sees."
    return Table("Beside its baselines", ("segmentation", "mean IoU", "pixel accuracy"), rows, note)


def verdict(results: Mapping[str, Any], split: str) -> str:
    """Return a sentence on a result."""
    name = "test" if split == "test" else "validation"
    beside = f"from random weights {results['random_miou']:.1%}; " if "random_miou" in results else ""
    return (
        f"Segmentation, {results['labelled_images']:,} images with masks: {name} mean IoU {results[f'{split}_miou']:.1%}, pixel "
        f"accuracy {results[f'{split}_pixel_accuracy']:.1%}; {beside}always naming the commonest class would score a mean IoU of "
        f"{results[f'{split}_miou_commonest']:.1%}."
    )
