"""protocol=features: what frozen features tell, beside the same encoder at random weights and raw pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import numpy as np
from torch import Tensor

from mae.config.schema.protocols import Features
from mae.config.schema.roots import FinetuneConfig
from mae.data.datamodule import ImageData
from mae.data.source import Source
from mae.data.statistics import pixel_tensors
from mae.downstream.frozen_tables import (
    PIXELS,
    PRETRAINED,
    RANDOM,
    few_shot_figure,
    few_shot_table,
    result_table,
    verdicts,
    write_few_shot,
)
from mae.downstream.labelled_data import choose_by_data, require_one_device
from mae.downstream.starting_weights import build_encoder, model_of, read_starting_checkpoint
from mae.downstream.tasks.registry import create_task
from mae.evaluation.frozen.features import extract_features, frozen, raw_pixels
from mae.evaluation.frozen.summary import MOST_OTHERS, MOST_TRAIN, FrozenScores, measure_frozen
from mae.models.backbones.backbone import Backbone
from mae.run.builders import build_data, build_evaluator
from mae.run.run import write_run
from mae.run.setting import Setting, open_setting
from mae.training.summary import model_rows, show_summary


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
    splits = labelled.splits
    look = choose_by_data(setting, labelled, checkpoint)
    setting.choices.fill("batch_size", min(256, look.count), "no training")
    encoder, report = build_encoder(config, checkpoint)
    encoders = {}
    if checkpoint is not None:
        encoders[PRETRAINED] = encoder
        config = config.model_copy(update={"model": model_of(encoder)})
    encoders[RANDOM] = build_encoder(config, None)[0]
    features = {name: frozen(one.eval(), protocol.pool) for name, one in encoders.items()}
    data = build_data(setting, splits, encoder)
    if not setting.quiet:
        split, source = data.scored
        scored = f"scored on {len(source):,} images of the {split} split"
        rows = [
            ("data", f"{look}, {labelled.described}; {scored}"),
            ("weights", str(report) if report else "random"),
            *model_rows(encoder, encoder),
        ]
        show_summary(setting.console, f"Frozen features in {setting.folder.path}", rows, setting.choices.made)
    return FrozenFeatures(setting, data, encoders, {**features, PIXELS: raw_pixels}, protocol.draws)


@dataclass
class FrozenFeatures:
    """Encoders and the data to measure them on.

    Attributes:
        setting: Config, folder and machine.
        data: Training images vote and are fitted, validation chooses, the ``scored`` split is scored.
        encoders: By name.
        features: What turns standardised images into features, by name; raw pixels among them.
        draws: Of the labels, for each point of the few-shot curves.
    """

    setting: Setting[FinetuneConfig]
    data: ImageData
    encoders: Mapping[str, Backbone]
    features: Mapping[str, Callable[[Tensor], Tensor]]
    draws: int

    def run(self) -> Mapping[str, Any]:
        """Measure all of them alike; write results.json, few_shot.csv and report.html; return the results."""
        setting, splits = self.setting, self.data.splits
        setting.folder.start(setting.config.plain())
        trainer = build_evaluator(setting)
        for encoder in self.encoders.values():
            encoder.to(trainer.strategy.root_device)
        split, scored = self.data.scored
        scores, labelled, images = dict[str, FrozenScores](), np.empty(0), 0
        for name, features in self.features.items():
            setting.say(f"{name}: features", style="dim")
            train, val = (
                self._extract(trainer, source, most, features)
                for source, most in ((splits.train, MOST_TRAIN), (splits.val, MOST_OTHERS))
            )
            last = val if scored is splits.val else self._extract(trainer, scored, MOST_OTHERS, features)
            labelled, images = train[1].numpy(), len(last[1])
            scores[name] = measure_frozen(
                train,
                val,
                last,
                splits.train.classes,
                draws=self.draws,
                seed=setting.config.seed,
                say=lambda line, name=name: setting.say(f"{name}: {line}", style="dim"),  # type: ignore[misc]
            )
        ours = next(iter(scores))
        results = {"stage": "features", "protocol": "features", "split": split, "baseline": ours == RANDOM}
        results |= {"labelled_images": len(labelled), f"{split}_images": images} | scores[ours].results()
        for name, prefix in ((RANDOM, "random"), (PIXELS, "pixels")):
            results |= {f"{prefix}_{key}": value for key, value in scores[name].results().items() if name != ours}
        write_few_shot(setting.folder.path / "few_shot.csv", scores)
        write_run(
            setting,
            results,
            verdicts(scores, split),
            tables=[result_table(scores, split, images), few_shot_table(scores)],
            figures=[few_shot_figure(scores, labelled, splits.train.classes)],
        )
        return results

    def _extract(
        self, trainer: L.Trainer, source: Source, most: int, features: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return features (N, D) and labels (N,) of up to ``most`` images, in the precision of the run."""
        options, device = self.setting.config.data, trainer.strategy.root_device
        mean, std = (values.to(device) for values in pixel_tensors(options.mean, options.std))
        with trainer.precision_plugin.forward_context():
            return extract_features(self.data.evaluation_loader(source, most=most), features, mean, std)
