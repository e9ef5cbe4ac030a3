"""evaluate_only=true: score a finished classifier or segmenter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L

from mae.checkpoints.load import encoder_from
from mae.checkpoints.read import read_checkpoint, read_header
from mae.config.reading import read_config
from mae.config.schema.roots import FinetuneConfig
from mae.data.datamodule import ImageData
from mae.downstream.labelled_data import choose_by_data
from mae.downstream.starting_weights import NOT_GIVEN
from mae.downstream.tasks.registry import create_task
from mae.downstream.tasks.task import Task
from mae.run.builders import build_evaluator
from mae.run.folder import RunFolder, shared_with_children
from mae.run.run import Outcome, say_outcome, show_start, write_outcome
from mae.run.setting import Setting, image_size, open_setting
from mae.training.devices import prepare_model
from mae.training.downstream import DownstreamModule
from mae.training.summary import model_rows


def prepare_evaluation(config: FinetuneConfig, overrides: Sequence[str] = ()) -> Evaluation:
    """Check everything and build every part, before any work starts.

    ``checkpoint`` names the model and ``run_dir`` where the scores go; with ``run_dir`` alone, the run in it is scored, into
    its ``evaluation`` folder. The data are those that the model was trained on, unless the overrides name others.

    Raises:
        ValueError: There is no such model, or the data hold a class that it does not know.
        FileNotFoundError: A folder or checkpoint does not exist.
    """
    if config.checkpoint == NOT_GIVEN and config.run_dir is not None:
        run = Path(config.run_dir)
        config.checkpoint, config.run_dir = str(run), str(_next_free(run / "evaluation"))
    if config.checkpoint in (NOT_GIVEN, None):
        raise ValueError(
            "evaluate_only=true needs a finished classifier: checkpoint=RUN, the folder of a second-stage run"
        )
    path = classifier_file(Path(config.checkpoint))
    trained = read_header(path).get("hyper_parameters", {})
    if "protocol" not in trained and "task" not in trained:
        raise ValueError(
            f"{path} holds no classifier, but an encoder: train_finetune.py checkpoint={config.checkpoint} trains one"
        )
    setting = open_setting(as_trained(config, path, trained, overrides), "evaluate", overrides)
    config, task, classes = setting.config, create_task(setting.config), tuple(trained["classes"])
    checkpoint = read_checkpoint(path)
    labelled = task.open_to_score(setting, classes)
    look = choose_by_data(setting, labelled, checkpoint)
    encoder, _ = encoder_from(checkpoint, image_size=image_size(config))
    together = min(task.evaluation_batch, look.count) // setting.shares * setting.shares
    setting.choices.fill("batch_size", max(setting.shares, together), "no training")
    data = task.build_data(setting, labelled.splits, encoder)
    model = task.build_model(encoder, len(classes))
    prepare_model(model, accelerator=config.trainer.accelerator, compile=config.trainer.compile)
    module = task.build_module(model, classes)
    trainer = build_evaluator(setting)
    split, source = data.scored
    rows = [
        ("data", f"{len(source):,} images of the {split} split, {labelled.described}"),
        ("weights", str(path)),
        *model_rows(encoder, model),
    ]
    show_start(setting, trainer, "Evaluation", rows)
    return Evaluation(setting, task, data, module, trainer, path)


def as_trained(
    config: FinetuneConfig, path: Path, trained: Mapping[str, Any], overrides: Sequence[str]
) -> FinetuneConfig:
    """Return the config with the protocol, the task and, unless the overrides name others, the data of a finished model.

    Args:
        config: What the user gave.
        path: The checkpoint.
        trained: Its hyper-parameters.
        overrides: What the user gave, as text.

    Raises:
        ValueError: The checkpoint lies outside a run folder, which would say its data.
    """
    given, values = {text.partition("=")[0].lstrip("+") for text in overrides}, config.plain()
    if not given & {"data", "data.source", "data.root", "data.name", "experiment"}:
        loading = {key: value for key, value in values["data"].items() if f"data.{key}" in given}
        values["data"] = {**stored_data(path), **loading}
    values["task"] = trained.get("task", {"name": "classification"})
    values["protocol"] = trained.get("protocol", values["protocol"])
    return read_config(FinetuneConfig, values)


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


def stored_data(path: Path) -> dict[str, Any]:
    """Return the config group ``data`` of the run that a checkpoint belongs to.

    Raises:
        ValueError: The checkpoint lies outside a run folder.
    """
    config = RunFolder(path.parent.parent, resume=True).stored_config
    if config is None:
        raise ValueError(f"{path} lies in no run folder, which would say its data: give data=... and data.root=DIR")
    return dict(config["data"])


@dataclass
class Evaluation:
    """A finished model and the data to score it on.

    Attributes:
        setting: Config, folder and machine.
        task: What the model does.
        data: Its ``scored`` split is read.
        module: Built as the checkpoint's; the weights are loaded when it runs.
        trainer: On any number of processes.
        path: The checkpoint.
    """

    setting: Setting[FinetuneConfig]
    task: Task[Any]
    data: ImageData
    module: DownstreamModule
    trainer: L.Trainer
    path: Path

    def run(self) -> Mapping[str, Any]:
        """Predict every image once; write the scores, results.json and report.html; return the results."""
        folder = self.setting.folder
        folder.start(self.setting.config.plain())
        with shared_with_children(folder):
            scored = self.task.score(self.trainer, self.module, self.data, folder.path, self.path)
        if scored is None:
            return {}
        results = {"stage": "evaluate", **self.task.named, **scored.results}
        outcome = Outcome(results, [scored.sentence], scored.tables, scored.figures)
        write_outcome(self.setting, outcome)
        say_outcome(self.setting, outcome)
        return results
