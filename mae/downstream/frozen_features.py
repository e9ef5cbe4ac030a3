"""protocol=features: what frozen features tell, beside the same encoder at random weights and raw pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import lightning as L
import numpy as np
from torch import Tensor

from mae.config.schema.protocols import Features
from mae.config.schema.roots import FinetuneConfig
from mae.data.datamodule import ImageData
from mae.data.source import thinned
from mae.downstream.frozen_tables import (
    PIXELS,
    PRETRAINED,
    RANDOM,
    few_shot_figure,
    few_shot_table,
    paired_results,
    result_table,
    verdicts,
    write_few_shot,
)
from mae.downstream.labelled_data import choose_by_data, extract_split, require_one_device
from mae.downstream.starting_weights import build_encoder, model_of, read_starting_checkpoint
from mae.downstream.tasks.registry import create_task
from mae.evaluation.frozen.features import frozen, raw_pixels
from mae.evaluation.frozen.summary import MOST_OTHERS, MOST_TRAIN, FrozenScores, measure_frozen
from mae.models.backbones.backbone import Backbone
from mae.run.builders import build_data, build_evaluator
from mae.run.run import Outcome, say_outcome, show_start, write_outcome
from mae.run.setting import Setting, open_setting
from mae.training.devices import prepare_model
from mae.training.summary import model_rows


def prepare_features(config: FinetuneConfig, overrides: Sequence[str] = ()) -> FrozenFeatures:
    """Check everything and build every part, before any work starts.

    Raises:
        ValueError: A value is wrong, or things do not fit each other.
        FileNotFoundError: A folder or checkpoint does not exist.
    """
    require_one_device(config, "protocol=features")
    setting = open_setting(config, "features", overrides)
    config = setting.config
    protocol = config.protocol
    assert isinstance(protocol, Features)
    checkpoint = read_starting_checkpoint(config)
    labelled = create_task(config).open(setting)
    look = choose_by_data(setting, labelled, checkpoint)
    setting.choices.fill("batch_size", min(256, look.count), "no training")
    encoder, report = build_encoder(config, checkpoint)
    encoders = {}
    if checkpoint is not None:
        encoders[PRETRAINED] = encoder
        config = config.model_copy(update={"model": model_of(encoder)})
    encoders[RANDOM] = build_encoder(config, None)[0]
    for one in encoders.values():
        prepare_model(one, accelerator=config.trainer.accelerator, compile=config.trainer.compile)
    features = {name: frozen(one.eval(), protocol.pool) for name, one in encoders.items()}
    data = build_data(setting, labelled.splits, encoder)
    trainer = build_evaluator(setting)
    split, source = data.scored
    rows = [
        ("data", f"{look}, {labelled.described}; scored on {len(source):,} images of the {split} split"),
        ("weights", str(report) if report else "random"),
        *model_rows(encoder, encoder),
    ]
    show_start(setting, trainer, "Frozen features", rows)
    return FrozenFeatures(setting, data, trainer, encoders, {**features, PIXELS: raw_pixels}, protocol)


@dataclass
class FrozenFeatures:
    """Encoders and the data to measure them on.

    Attributes:
        setting: Config, folder and machine.
        data: Training images vote and are fitted, validation chooses, the ``scored`` split is scored.
        trainer: Knows the device and the precision.
        encoders: By name.
        features: What turns standardised images into features, by name; raw pixels among them.
        protocol: How they are compared, and how many draws of labels there are.
    """

    setting: Setting[FinetuneConfig]
    data: ImageData
    trainer: L.Trainer
    encoders: Mapping[str, Backbone]
    features: Mapping[str, Callable[[Tensor], Tensor]]
    protocol: Features

    def run(self) -> Mapping[str, Any]:
        """Measure all of them alike; write results.json, few_shot.csv and report.html; return the results."""
        setting, splits = self.setting, self.data.splits
        setting.folder.start(setting.config.plain())
        for encoder in self.encoders.values():
            encoder.to(self.trainer.strategy.root_device)
        split, scored = self.data.scored
        train, val = thinned(splits.train, MOST_TRAIN), thinned(splits.val, MOST_OTHERS)
        last = val if scored is splits.val else thinned(scored, MOST_OTHERS)
        left_out = [
            f"{len(fewer):,} of the {len(source):,} {name} images were used, drawn at random."
            for name, source, fewer in (
                ("training", splits.train, train),
                ("validation", splits.val, val),
                ("scored", scored, last),
            )
            if len(fewer) < len(source)
        ]
        scores, labelled, images = dict[str, FrozenScores](), np.empty(0), 0
        for name, features in self.features.items():
            setting.say(f"{name}: features", style="dim")
            parts = {
                source: extract_split(setting, self.data, self.trainer, source, features)
                for source in dict.fromkeys((train, val, last))
            }
            labelled, images = parts[train][1].numpy(), len(parts[last][1])
            found = measure_frozen(
                parts[train],
                parts[val],
                parts[last],
                splits.train.classes,
                draws=self.protocol.draws,
                seed=setting.config.seed,
                whiten=self.protocol.whiten,
                say=lambda line, name=name: setting.say(f"{name}: {line}", style="dim"),  # type: ignore[misc]
            )
            scores[name] = replace(found, notes=[*left_out, *found.notes])
        ours = next(iter(scores))
        results = {"stage": "features", "protocol": "features", "split": split, "baseline": ours == RANDOM}
        results |= {"labelled_images": len(labelled), f"{split}_images": images} | scores[ours].results()
        for name, prefix in ((RANDOM, "random"), (PIXELS, "pixels")):
            results |= {f"{prefix}_{key}": value for key, value in scores[name].results().items() if name != ours}
        results |= paired_results(scores)
        write_few_shot(setting.folder.path / "few_shot.csv", scores)
        outcome = Outcome(
            results,
            verdicts(scores, split),
            tables=[result_table(scores, split, images, whiten=self.protocol.whiten), few_shot_table(scores)],
            figures=[few_shot_figure(scores, labelled, splits.train.classes)],
        )
        write_outcome(setting, outcome)
        say_outcome(setting, outcome)
        return results
