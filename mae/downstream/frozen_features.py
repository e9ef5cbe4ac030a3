"""protocol=features: what frozen features tell, beside the same encoder at random weights and raw pixels."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from mae.config.checks import Config
from mae.data.datamodule import ImageData
from mae.data.few_labels import few_labels
from mae.data.source import Source
from mae.data.statistics import pixel_tensors
from mae.downstream.labelled_data import build_encoder, model_config, open_checkpoint, open_labelled, require_one_device
from mae.evaluation.frozen.features import extract_features, frozen, raw_pixels
from mae.evaluation.frozen.few_shot import BUDGETS
from mae.evaluation.frozen.summary import MOST_OTHERS, MOST_TRAIN, FrozenScores, measure_frozen
from mae.evaluation.intervals import mean_interval
from mae.models.backbones.backbone import Backbone
from mae.report.figures import lines_svg
from mae.report.tables import Row, Table
from mae.run.run import Setting, build_data, build_evaluator, open_setting, write_run
from mae.training.summary import model_rows, show_summary

PRETRAINED, RANDOM, PIXELS = "pretrained", "same encoder, random weights", "raw pixels"


def prepare_features(config: Config, overrides: Sequence[str] = ()) -> FrozenFeatures:
    """Check everything and build every part, before any work starts.

    Raises:
        ValueError: A value is wrong, or things do not fit each other.
        FileNotFoundError: A folder or checkpoint does not exist.
    """
    require_one_device(config, "protocol=features")
    setting = open_setting(config, "features", overrides)
    config = setting.config
    checkpoint = open_checkpoint(config)
    splits, look = open_labelled(setting, checkpoint)
    setting.choices.fill("batch_size", min(256, look.count), "no training")
    encoder, report = build_encoder(config, checkpoint)
    encoders = {}
    if checkpoint is not None:
        encoders[PRETRAINED] = encoder
        config = {**config, "model": model_config(encoder)}
    encoders[RANDOM] = build_encoder(config, None)[0]
    features = {name: frozen(one.eval(), config["protocol"]["pool"]) for name, one in encoders.items()}
    data = build_data(setting, splits, encoder)
    if not setting.quiet:
        split, source = data.scored
        rows = [
            (
                "data",
                f"{look}, {len(splits.train.classes)} classes; scored on {len(source):,} images of the {split} split",
            ),
            ("weights", str(report) if report else "random"),
            *model_rows(encoder, encoder),
        ]
        show_summary(setting.console, f"Frozen features in {setting.folder.path}", rows, setting.choices.made)
    return FrozenFeatures(setting, data, encoders, {**features, PIXELS: raw_pixels})


@dataclass
class FrozenFeatures:
    """Encoders and the data to measure them on.

    Attributes:
        setting: Config, folder and machine.
        data: Training images vote and are fitted, validation chooses, the ``scored`` split is scored.
        encoders: By name.
        features: What turns standardised images into features, by name; raw pixels among them.
    """

    setting: Setting
    data: ImageData
    encoders: Mapping[str, Backbone]
    features: Mapping[str, Callable[[Tensor], Tensor]]

    def run(self) -> Mapping[str, Any]:
        """Measure all of them alike; write results.json, few_shot.csv and report.html; return the results."""
        setting, splits = self.setting, self.data.splits
        setting.folder.start(setting.config)
        trainer = build_evaluator(setting)
        device = trainer.strategy.root_device
        for encoder in self.encoders.values():
            encoder.to(device)
        mean, std = (values.to(device) for values in pixel_tensors(*self._statistics()))
        split, scored = self.data.scored

        def extract(source: Source, most: int, features: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
            with trainer.precision_plugin.forward_context():
                return extract_features(self.data.evaluation_loader(source, most=most), features, mean, std)

        scores = {}
        labelled, images = np.empty(0), 0
        for name, features in self.features.items():
            setting.say(f"{name}: features", style="dim")
            train, val = extract(splits.train, MOST_TRAIN, features), extract(splits.val, MOST_OTHERS, features)
            last = val if scored is splits.val else extract(scored, MOST_OTHERS, features)
            labelled, images = train[1].numpy(), len(last[1])
            scores[name] = measure_frozen(
                train,
                val,
                last,
                splits.train.classes,
                draws=setting.config["protocol"]["draws"],
                seed=setting.config["seed"],
                say=lambda line, name=name: setting.say(f"{name}: {line}", style="dim"),  # type: ignore[misc]
            )
        ours = next(iter(scores))
        results = {"stage": "features", "protocol": "features", "split": split, "baseline": ours == RANDOM}
        results |= {"labelled_images": len(labelled), f"{split}_images": images} | scores[ours].results()
        for name, prefix in ((RANDOM, "random"), (PIXELS, "pixels")):
            results |= {f"{prefix}_{key}": value for key, value in scores[name].results().items() if name != ours}
        write_few_shot(setting.folder.path / "few_shot.csv", scores)
        tables = [result_table(scores, split, images), few_shot_table(scores)]
        write_run(
            setting,
            results,
            verdicts(scores, split),
            tables=tables,
            figures=[few_shot_figure(scores, labelled, splits.train.classes)],
        )
        return results

    def _statistics(self) -> tuple[Sequence[float], Sequence[float]]:
        options = self.setting.config["data"]
        return options["mean"], options["std"]


def result_table(scores: Mapping[str, FrozenScores], split: str, images: int) -> Table:
    """Return every measure, a row for each kind of features."""
    head = ("", "kNN", "logistic regression", "cluster accuracy", "cluster NMI", "recall at 1", "mAP")
    rows = []
    for name, one in scores.items():
        found, clusters = one.retrieval, one.clustering
        cells = (
            f"{one.knn_top1:.1%}",
            f"{one.logistic_top1:.1%}",
            f"{clusters.accuracy:.1%}" if clusters else "",
            f"{clusters.nmi:.3f}" if clusters else "",
            f"{found.recall[1]:.1%}" if found else "",
            f"{found.mean_average_precision:.3f}" if found else "",
        )
        rows.append(Row((name, *cells), ours=name == PRETRAINED))
    notes = " ".join(dict.fromkeys(note for one in scores.values() for note in one.notes))
    chosen = next(iter(scores.values()))
    return Table(
        "Frozen features",
        head,
        rows,
        f"On {images:,} {split} images; k, temperature and regularisation are chosen on validation (here k = {chosen.knn.k}, "
        f"temperature {chosen.knn.temperature:g}, C = {chosen.logistic.strength:g}). {notes}".strip(),
    )


def few_shot_table(scores: Mapping[str, FrozenScores]) -> Table:
    """Return the few-shot curves as numbers: mean and 95% interval over the draws."""
    budgets = list(next(iter(scores.values())).few_shot)
    rows = [
        Row((name, *(str(mean_interval(one.few_shot[budget])) for budget in budgets)), ours=name == PRETRAINED)
        for name, one in scores.items()
    ]
    draws = max(len(values) for one in scores.values() for values in one.few_shot.values())
    note = f"Logistic regression; mean and 95% interval over {draws} draws of the labels. All labels are one draw."
    return Table("Few labels", ("", *budgets), rows, note)


def few_shot_figure(scores: Mapping[str, FrozenScores], labels: np.ndarray, classes: Sequence[str]) -> tuple[str, str]:
    """Draw the few-shot curves over the number of labelled images, of which ``labels`` are all."""
    sizes = {
        str(budget): len(few_labels(labels, classes, 0, budget.per_class, budget.fraction))
        for budget in BUDGETS
        if all(str(budget) in one.few_shot for one in scores.values())
    }
    lines = {}
    for name, one in scores.items():
        intervals = {budget: mean_interval(one.few_shot[budget]) for budget in sorted(sizes, key=sizes.__getitem__)}
        lines[name] = [
            (float(sizes[budget]), interval.mean, interval.half_width) for budget, interval in intervals.items()
        ]
    return "Few labels", lines_svg(lines, "labelled images", "top-1")


def write_few_shot(path: Any, scores: Mapping[str, FrozenScores]) -> None:
    """Write every draw as a row."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["features", "labels", "draw", "top1"])
        for name, one in scores.items():
            for budget, values in one.few_shot.items():
                writer.writerows([name, budget, draw, value] for draw, value in enumerate(values))


def verdicts(scores: Mapping[str, FrozenScores], split: str) -> list[str]:
    """Return what the measures say, in sentences."""
    knn = ", ".join(f"{name} {one.knn_top1:.1%}" for name, one in scores.items())
    logistic = ", ".join(f"{name} {one.logistic_top1:.1%}" for name, one in scores.items())
    sentences = [f"kNN: {knn}.", f"Logistic regression on all labels: {logistic}."]
    fewest = next(iter(next(iter(scores.values())).few_shot))
    few = ", ".join(f"{name} {mean_interval(one.few_shot[fewest])}" for name, one in scores.items())
    sentences.append(f"With {fewest} of the labels: {few}." if "%" in fewest else f"With {fewest}: {few}.")
    if split == "val":
        sentences.append(
            "The data have no test split: the figures are of the images that also chose k, temperature and C."
        )
    if PRETRAINED in scores:
        ours = scores[PRETRAINED]
        for other in (RANDOM, PIXELS):
            if max(ours.knn_top1, ours.logistic_top1) < max(scores[other].knn_top1, scores[other].logistic_top1):
                sentences.append(f"Pretraining is behind {other}: train longer, or on more images.")
    return sentences
