"""evaluate_only=true: score a finished segmenter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L

from mae.checkpoints.load import encoder_from
from mae.checkpoints.read import read_checkpoint
from mae.config.choosing.images import choose_loading
from mae.config.schema.roots import FinetuneConfig
from mae.data.datamodule import ImageData
from mae.data.inspection import inspect_images
from mae.data.open_splits import open_splits
from mae.data.segmentation.mask_inspection import open_masks
from mae.downstream.labelled_data import follow_checkpoint
from mae.downstream.segmentation import draw, scored_results, write_classes
from mae.evaluation.segmentation_scores import commonest, measure_segmentation
from mae.models.protocols import create_segmenter
from mae.report.segmentation_pictures import iou_table
from mae.run.builders import build_data, build_evaluator
from mae.run.folder import shared_with_children
from mae.run.run import write_run
from mae.run.setting import Setting, image_size, open_setting
from mae.training.segmenting import SegmentationModule
from mae.training.summary import model_rows, show_summary


def prepare_segmentation_evaluation(
    config: FinetuneConfig, overrides: Sequence[str], path: Path, trained: Mapping[str, Any]
) -> SegmentationEvaluation:
    """Check everything and build every part, before any work starts.

    Args:
        config: With the group ``data`` of the data to score on.
        overrides: What the user gave.
        path: The checkpoint.
        trained: Its hyper-parameters.

    Raises:
        ValueError: The data have no masks, or ids that the segmenter does not know.
        FileNotFoundError: A folder does not exist.
    """
    config.data.classes = list(trained["classes"])
    setting = open_setting(config, "evaluate", overrides)
    setting.config.task = dict(trained["task"])
    checkpoint = read_checkpoint(path)
    splits, masks = open_masks(open_splits(setting.config.data, setting.folder.path))
    look = inspect_images(splits.train)
    follow_checkpoint(setting.choices, checkpoint)
    encoder, _ = encoder_from(checkpoint, image_size=image_size(setting.config))
    choose_loading(setting.choices, look, setting.machine, setting.devices)
    setting.choices.fill(
        "batch_size", max(setting.shares, min(16, look.count) // setting.shares * setting.shares), "no training"
    )
    data = build_data(setting, splits, encoder, masks=True)
    model = create_segmenter(encoder, len(masks.classes), trained["task"])
    module = SegmentationModule(model, trained["task"], masks.classes)
    trainer = build_evaluator(setting)
    split, source = data.scored
    if trainer.is_global_zero and not setting.quiet:
        rows = [
            ("data", f"{len(source):,} images of the {split} split, {masks}"),
            ("weights", str(path)),
            *model_rows(encoder, model),
        ]
        show_summary(setting.console, f"Evaluation in {setting.folder.path}", rows, ())
    return SegmentationEvaluation(setting, data, module, trainer, path)


@dataclass
class SegmentationEvaluation:
    """A finished segmenter and the data to score it on; the weights are loaded when it runs."""

    setting: Setting
    data: ImageData
    module: SegmentationModule
    trainer: L.Trainer
    path: Path

    def run(self) -> Mapping[str, Any]:
        """Segment every image once; write per_class.csv, the picture, results.json and report.html; return the results."""
        folder = self.setting.folder
        folder.start(self.setting.config)
        with shared_with_children(folder):
            self.trainer.test(self.module, datamodule=self.data, ckpt_path=self.path, weights_only=True, verbose=False)
        if not self.trainer.is_global_zero:
            return {}
        split, source = self.data.scored
        scores, trivial = measure_segmentation(self.module.scored), commonest(self.module.scored)
        results = {
            "stage": "evaluate",
            "task": "segmentation",
            **scored_results(split, scores),
            f"{split}_miou_commonest": trivial.mean_iou,
            f"{split}_images": len(source),
        }
        verdict = (
            f"{len(source):,} {split} images: mean IoU {scores.mean_iou:.1%}, pixel accuracy {scores.pixel_accuracy:.1%}; always "
            f"naming the commonest class would score a mean IoU of {trivial.mean_iou:.1%}."
        )
        write_classes(folder.path / "per_class.csv", scores, self.module.classes)
        draw(self.module, self.data, folder.path / "pictures" / "segmentations.png")
        write_run(self.setting, results, [verdict], tables=[iou_table(scores, self.module.classes)])
        return results
