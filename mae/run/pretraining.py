"""The first stage: prepare a pretraining run, run it, report it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import lightning as L
from lightning.pytorch.utilities.seed import isolate_rng

from mae.config.choosing.images import choose_loading
from mae.config.choosing.model import choose_images_and_model
from mae.config.choosing.pretraining import choose_pretraining
from mae.config.composing import load_preset
from mae.config.schema.roots import PretrainConfig
from mae.data.datamodule import ImageData
from mae.data.inspection import inspect_images
from mae.data.open_splits import open_splits
from mae.evaluation.frozen.features import raw_pixels
from mae.evaluation.frozen.knn_probe import KnnProbe
from mae.evaluation.verdict import pretraining_verdicts
from mae.masking.samplers import MASKINGS
from mae.models.backbones.backbone import PatchBackbone
from mae.models.cost import parameters
from mae.models.masked_model import MaskedModel
from mae.models.masked_models import Part, create_masked_model
from mae.report.pictures import save_reconstructions
from mae.run.builders import build_data, build_optimization
from mae.run.run import Run
from mae.run.setting import Setting, image_size, open_setting
from mae.training.callbacks.alarms import Alarms
from mae.training.callbacks.measurements import Measurements, ReconstructionPictures
from mae.training.callbacks.online_probe import OnlineProbe, probe_schedule
from mae.training.pretraining import PretrainingModule
from mae.training.summary import model_rows, optimization_rows


def build_model(config: PretrainConfig) -> MaskedModel:
    """Build the model of a config whose every value is chosen; the seed decides its weights.

    Raises:
        ValueError: The objective is unknown, or does not fit the model or the images.
    """
    L.seed_everything(config.seed, verbose=False)
    decoder, objective = config.decoder, config.objective
    if "stem" in config.model.options:  # a preset of a network that is no ViT
        raise ValueError(
            f"model.name={config.model.name!r} is not a VisionTransformer, whose patches can be hidden: choose one such as "
            f"vit_small_patch16_224; train_finetune.py checkpoint=null trains others, with labels"
        )
    images = {"image_size": image_size(config), "in_channels": config.data.channels}
    return create_masked_model(
        {**images, "_target_": config.model.class_path, **config.model.arguments},
        Part(decoder.name, decoder.class_path, decoder.options),
        Part(objective.name, objective.class_path, objective.options),
        bits=config.data.bits,
    )


def build_untrained(config: PretrainConfig) -> PatchBackbone:
    """Return the encoder as it was before training; nobody else's random numbers change."""
    with isolate_rng():
        return build_model(config).encoder


def build_probe(setting: Setting[PretrainConfig], data: ImageData, model: MaskedModel, visible: int) -> OnlineProbe:
    """Return the online probe that the config describes, at a pace that costs little."""
    config, options = setting.config, setting.config.callbacks
    step_images = setting.micro_batch * config.trainer.accumulate
    batch, every = probe_schedule(step_images, model.grid[0] * model.grid[1], visible, model.encoder.width)
    return OnlineProbe(
        data,
        images=options.probe_images,
        megabytes=options.probe_memory,
        batch=batch,
        every=every,
        seed=config.seed,
    )


def prepare(config: PretrainConfig, overrides: Sequence[str] = ()) -> Pretraining:
    """Check everything and build every part, before any work starts.

    Args:
        config: The composed config; null values are chosen here.
        overrides: What the user gave, which a resume checks against the run.

    Raises:
        ValueError: A value is wrong, or things do not fit each other.
        FileNotFoundError: A folder or checkpoint does not exist.
        ImportError: An extra is needed and not installed.
    """
    setting = open_setting(config, "pretrain", overrides)
    config, choices = setting.config, setting.choices

    splits = open_splits(config.data.model_dump(), setting.folder.path)
    look = inspect_images(splits.train)
    choose_images_and_model(choices, look, setting.machine, load_preset)
    choose_loading(choices, look, setting.machine, setting.devices)
    choose_pretraining(choices, look.count, setting.machine, setting.shares)

    model = build_model(config)
    if config.trainer.grad_checkpointing:
        model.set_grad_checkpointing()
    sampler = MASKINGS.create(
        name=config.masking.name, target=config.masking.class_path, options=config.masking.options
    )
    model.objective.check_masking(config.masking.class_path or str(config.masking.name), sampler.hides)
    sampler.check(model.grid)
    data = build_data(setting, splits, model.encoder)
    optimization = build_optimization(setting, model.encoder, data.steps_per_epoch)
    module = PretrainingModule(model, sampler, optimization, validation_images=len(splits.val), seed=config.seed)
    if config.trainer.compile:
        model.compile()

    options = config.callbacks
    pictures = ReconstructionPictures(
        setting.folder.path / "pictures", data, options.pictures, options.picture_times, save_reconstructions
    )
    labelled = bool(splits.train.classes)
    probe = build_probe(setting, data, model, sampler.seen(model.grid)) if options.probe and labelled else None
    measurements = Measurements(
        KnnProbe(data, options.knn_bank, options.knn_queries),
        options.knn_times,
        knn=options.knn and labelled,
        rank=options.rank,
        probe=probe,
        untrained=partial(build_untrained, config),
    )
    alarms = Alarms(measurements, optimization, workers=config.data.num_workers)
    callbacks = [*([pictures] if options.pictures else []), *([probe] if probe else []), measurements, alarms]
    trainer, progress = Run.build_trainer(setting, optimization.total_steps, "val_loss", "min", callbacks)

    job = Pretraining(setting, data, module, trainer, progress, pictures, measurements, alarms)
    job.show_summary(
        "Pretraining",
        [
            ("data", f"{look}; validation: {len(splits.val):,}, {splits.origin}"),
            *model_rows(model.encoder, model),
            ("masking", sampler.describe(model.grid)),
            *optimization_rows(optimization, model, config.optim.base_lr, config.batch_size, setting.micro_batch),
        ],
    )
    return job


@dataclass
class Pretraining(Run):
    """A pretraining run, ready to go."""

    module: PretrainingModule
    pictures: ReconstructionPictures
    measurements: Measurements
    alarms: Alarms

    def run(self) -> Mapping[str, Any]:
        """Train, measure, and write the encoder, results.json and report.html; return the results."""
        if self.trainer.is_global_zero and self.setting.folder.last_checkpoint is None:
            self.say("measuring the encoder before training", style="dim")
        self.fit()
        (scores,) = self.trainer.validate(self.module, datamodule=self.data, verbose=False)
        if not self.trainer.is_global_zero:
            return {}
        config, model = self.setting.config, self.module.model
        if config.callbacks.pictures:
            self.pictures.draw(self.module, self.setting.folder.path / "pictures" / "reconstructions.png")
        results = {
            "stage": "pretrain",
            "val_loss": scores["val_loss"],
            "epochs": config.epochs,
            "steps": self.trainer.global_step,
            "images_seen": self.trainer.global_step * config.batch_size,
            "parameters": parameters(model),
            "objective": model.objective.title,
            "normalize_pixels": model.objective.normalize,
            **self._measured(),
            "alarms": self.alarms.sentences,
        }
        return self.finish(
            model.encoder, results, pretraining_verdicts(results, model.objective), caption=model.objective.caption
        )

    def _measured(self) -> dict[str, float]:
        """Return the figures of the trained encoder, of the same one before training, and of raw pixels."""
        self.say("measuring frozen features", style="dim")
        figures = self.measurements.results(self.trainer, self.module)
        if "knn_top1" in figures:
            protocol = self.measurements.protocol
            figures["knn_top1_pixels"] = protocol.accuracy(raw_pixels, self.module.mean, self.module.std)
        return figures
