"""The last word on a segmenter: every pixel of the split that is scored, a picture, and what follows from them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import lightning as L
import torch
from torch import Tensor

from mae.data.datamodule import ImageData
from mae.data.loading.batches import Batch
from mae.data.statistics import unit_pixels
from mae.downstream.tasks.task import Scored
from mae.evaluation.paired import resampled
from mae.evaluation.segmentation_scores import (
    SegmentationScores,
    commonest,
    mean_iou,
    measure_segmentation,
    pixel_accuracy,
    write_image_counts,
)
from mae.report.segmentation_pictures import iou_table, save_segmentations
from mae.training.segmenting import SegmentationModule

IMAGES_FILE = "per_image.csv"
SHOWN = 6
"""Images in the picture of a run."""


def score_segmenter(
    trainer: L.Trainer, module: SegmentationModule, data: ImageData, folder: Path, weights: Path
) -> Scored | None:
    """Segment the split that is scored, once, with the weights of a checkpoint; write per_class.csv, per_image.csv and a picture.

    Args:
        trainer: On any number of processes; each image counts once.
        module: Built as the checkpoint's.
        data: Its ``scored`` split is read.
        folder: Where the files go.
        weights: The checkpoint.

    Returns:
        The scores; None on all processes but the first.

    Raises:
        MaskError: No pixel of the split has a label.
    """
    trainer.test(module, datamodule=data, ckpt_path=weights, weights_only=True, verbose=False)
    scores, trivial = measure_segmentation(module.scored), commonest(module.scored)
    if not trainer.is_global_zero:
        return None
    split, source = data.scored
    folder.mkdir(parents=True, exist_ok=True)
    _write_classes(folder / "per_class.csv", scores, module.classes)
    names = [source.name(index) for index in range(len(source))]
    write_image_counts(folder / IMAGES_FILE, names, module.each, module.classes)
    estimates = {"miou": resampled(module.each, mean_iou), "pixel_accuracy": resampled(module.each, pixel_accuracy)}
    module.to(trainer.strategy.root_device)  # Lightning leaves it on the CPU when it is done
    _draw(module, data, folder / "pictures" / "segmentations.png")
    return Scored(
        split,
        {
            f"{split}_miou": scores.mean_iou,
            f"{split}_pixel_accuracy": scores.pixel_accuracy,
            f"{split}_mean_accuracy": scores.mean_accuracy,
            f"{split}_miou_commonest": trivial.mean_iou,
            f"{split}_images": len(source),
            **{f"{split}_{name}_interval": [one.low, one.high] for name, one in estimates.items()},
        },
        f"{len(source):,} {split} images: mean IoU {estimates['miou']}, pixel accuracy {estimates['pixel_accuracy']}; always "
        f"naming the commonest class would score a mean IoU of {trivial.mean_iou:.1%}.",
        tables=[iou_table(scores, module.classes)],
        trivial={"miou": trivial.mean_iou, "pixel_accuracy": trivial.pixel_accuracy},
    )


def _write_classes(path: Path, scores: SegmentationScores, classes: Sequence[str]) -> None:
    """Write pixels and IoU of each class as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["class", "pixels", "iou"])
        writer.writerows(zip(classes, scores.pixels, scores.iou, strict=True))


@torch.no_grad()
def _draw(module: SegmentationModule, data: ImageData, path: Path) -> None:
    """Draw images of the split that is scored, evenly spread, with truth and prediction."""
    module.eval()
    batches = list(data.evaluation_loader(data.scored[1], most=SHOWN))
    predicted = [module(*_seen(batch, module.device)).argmax(dim=1).cpu() for batch in batches]
    images = unit_pixels(torch.cat([batch.images for batch in batches]))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_segmentations(
        images, torch.cat([batch.labels for batch in batches]), torch.cat(predicted), module.classes, path
    )


def _seen(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Return what the module takes of a batch, on its device."""
    return batch.images.to(device), None if batch.valid is None else batch.valid.to(device)
