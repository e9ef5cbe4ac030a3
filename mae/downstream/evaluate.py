"""evaluate_only=true: score a finished classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L

from mae.checkpoints.load import encoder_from
from mae.checkpoints.read import read_checkpoint, read_header
from mae.config.choosing.images import choose_loading
from mae.config.schema.roots import FinetuneConfig
from mae.data.datamodule import ImageData
from mae.data.inspection import inspect_images
from mae.data.open_splits import open_splits, refuse_stream
from mae.downstream.labelled_data import follow_checkpoint
from mae.downstream.scoring import score
from mae.downstream.segmentation_evaluation import (
    SegmentationEvaluation,
    prepare_segmentation_evaluation,
)
from mae.models.protocols import create_classifier
from mae.run.builders import build_data, build_evaluator
from mae.run.folder import RunFolder, shared_with_children
from mae.run.run import write_run
from mae.run.setting import Setting, image_size, open_setting
from mae.training.classifying import FinetuningModule
from mae.training.summary import model_rows, show_summary


def prepare_evaluation(config: FinetuneConfig, overrides: Sequence[str] = ()) -> Evaluation | SegmentationEvaluation:
    """Check everything and build every part, before any work starts.

    ``checkpoint`` names the classifier and ``run_dir`` where the scores go; with ``run_dir`` alone, the run in it is scored, into
    its ``evaluation`` folder. The data are those that the classifier was trained on, unless the overrides name others.

    Raises:
        ValueError: There is no classifier, or the data hold a class that it does not know.
        FileNotFoundError: A folder or checkpoint does not exist.
    """
    if config.checkpoint == "???" and config.run_dir is not None:
        run = Path(config.run_dir)
        config.checkpoint, config.run_dir = str(run), str(_next_free(run / "evaluation"))
    if config.checkpoint in ("???", None):
        raise ValueError(
            "evaluate_only=true needs a finished classifier: checkpoint=RUN, the folder of a second-stage run"
        )
    path = classifier_file(Path(config.checkpoint))
    trained = read_header(path).get("hyper_parameters", {})
    if "protocol" not in trained and "task" not in trained:
        raise ValueError(
            f"{path} holds no classifier, but an encoder: train_finetune.py checkpoint={config['checkpoint']} trains one"
        )
    given = {text.partition("=")[0].lstrip("+") for text in overrides}
    if not given & {"data", "data.source", "data.root", "data.name", "experiment"}:
        loading = {key: value for key, value in config.data.items() if f"data.{key}" in given}
        config.data = {**config.data, **stored_data(path), **loading}
    if "task" in trained:
        return prepare_segmentation_evaluation(config, overrides, path, trained)
    setting = open_setting(config, "evaluate", overrides)
    setting.config.protocol = trained["protocol"]
    checkpoint = read_checkpoint(path)
    refuse_stream(setting.config.data)
    splits = open_splits(setting.config.data, setting.folder.path)
    look = inspect_images(splits.train)
    follow_checkpoint(setting.choices, checkpoint)
    encoder, _ = encoder_from(checkpoint, image_size=image_size(setting.config))
    choose_loading(setting.choices, look, setting.machine, setting.devices)
    setting.choices.fill(
        "batch_size", max(setting.shares, min(256, look.count) // setting.shares * setting.shares), "no training"
    )
    data = build_data(setting, splits, encoder)
    known = match_classes(splits.train.classes, trained["classes"], setting.config.data.source)
    classes = tuple(trained["classes"])
    model = create_classifier(encoder, len(classes), trained["protocol"])
    module = FinetuningModule(model, trained["protocol"], classes)
    trainer = build_evaluator(setting)
    split, source = data.scored
    if trainer.is_global_zero and not setting.quiet:
        rows = [
            ("data", f"{len(source):,} images of the {split} split, {len(classes)} classes"),
            ("weights", str(path)),
            *model_rows(encoder, model),
        ]
        show_summary(setting.console, f"Evaluation in {setting.folder.path}", rows, ())
    return Evaluation(setting, data, module, trainer, path, known)


def _next_free(path: Path) -> Path:
    number, free = 2, path
    while free.exists():
        number, free = number + 1, path.with_name(f"{path.name}_{number}")
    return free


def classifier_file(path: Path) -> Path:
    """Return the checkpoint of a run folder that was best on validation, or the file itself.

    Raises:
        FileNotFoundError: There is none.
    """
    if path.is_dir():
        path = path / "checkpoints" / "best.ckpt"
    if not path.is_file():
        raise FileNotFoundError(f"no classifier at {path}: give the folder of a finished run of train_finetune.py")
    return path


def stored_data(path: Path) -> FinetuneConfig:
    """Return the config group ``data`` of the run that a checkpoint belongs to.

    Raises:
        ValueError: The checkpoint lies outside a run folder.
    """
    config = RunFolder(path.parent.parent, resume=True).stored_config
    if config is None:
        raise ValueError(f"{path} lies in no run folder, which would say its data: give data=... and data.root=DIR")
    data: FinetuneConfig = config.data
    return data


def match_classes(found: Sequence[str], trained: Sequence[str], source: str) -> dict[int, int]:
    """Return the classifier's number of each class of the data, by name.

    Raises:
        ValueError: The data have no labels, or a class that the classifier does not know.
    """
    if not found:
        raise ValueError(f"data={source} has no labels to score against: data=image_folder reads them from folders")
    unknown = [name for name in found if name not in trained]
    if unknown:
        raise ValueError(
            f"the classifier's head has {len(trained)} classes, and data={source} has {len(found)}, among them {unknown[0]!r}, "
            f"which it was not trained on: evaluate on its own classes, or train a new head"
        )
    return {number: list(trained).index(name) for number, name in enumerate(found)}


@dataclass
class Evaluation:
    """A finished classifier and the data to score it on.

    Attributes:
        setting: FinetuneConfig, folder and machine.
        data: Its ``scored`` split is read.
        module: Built as the checkpoint's; the weights are loaded when it runs.
        trainer: On any number of processes.
        path: The checkpoint.
        known: The classifier's number of each class of the data.
    """

    setting: Setting
    data: ImageData
    module: FinetuningModule
    trainer: L.Trainer
    path: Path
    known: Mapping[int, int]

    def run(self) -> Mapping[str, Any]:
        """Predict every image once; write predictions.csv, per_class.csv, results.json and report.html; return the results."""
        folder = self.setting.folder
        folder.start(self.setting.config)
        with shared_with_children(folder):
            scored = score(self.trainer, self.module, self.data, folder.path, self.path, self.known)
        if scored is None:
            return {}
        results = {"stage": "evaluate", "protocol": self.setting.config.protocol.name, **scored.results}
        top5 = f", top-5 {scored.scores.top5:.1%}" if scored.scores.top5 is not None else ""
        verdict = (
            f"{results[f'{scored.split}_images']:,} {scored.split} images: top-1 {scored.scores.top1:.1%}{top5}; "
            f"confidence is off by {scored.scores.calibration_error:.1%} on average (expected calibration error)."
        )
        write_run(self.setting, results, [verdict], tables=scored.tables, figures=scored.figures)
        return results
