"""The first stage: prepare a pretraining run, run it, report it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import lightning as L
from lightning.pytorch.utilities.seed import isolate_rng

from mae.config.checks import Config
from mae.config.choices import choose_images_and_model, choose_loading, choose_pretraining
from mae.config.composing import load_preset
from mae.data.datamodule import ImageData
from mae.data.inspection import inspect_images
from mae.data.open_splits import open_splits
from mae.evaluation.frozen.features import raw_pixels
from mae.evaluation.frozen.knn_probe import KnnProbe
from mae.evaluation.verdict import pretraining_verdicts
from mae.masking.samplers import SAMPLERS, create_sampler
from mae.models.autoencoder import create_autoencoder
from mae.models.backbones.encoder import Encoder
from mae.models.masked_model import MaskedModel
from mae.models.patch_prediction import MaskedPatchPredictor
from mae.report.pictures import save_reconstructions
from mae.run.run import Run, Setting, build_data, build_optimization, image_size, open_setting
from mae.training.callbacks.alarms import Alarms
from mae.training.callbacks.measurements import Measurements, ReconstructionPictures
from mae.training.callbacks.online_probe import OnlineProbe, probe_schedule
from mae.training.pretraining import PretrainingModule
from mae.training.summary import model_rows, optimization_rows

OBJECTIVES = {"pixels": "random", "masked_patch_prediction": "corruption"}
"""Pretraining objectives, each with the masking it takes."""


def build_model(config: Config) -> MaskedModel:
    """Build the model of a config whose every value is chosen; the seed decides its weights.

    Raises:
        ValueError: The objective is unknown, or does not fit the model or the images.
    """
    L.seed_everything(config["seed"], verbose=False)
    decoder, objective, masking = config["decoder"], config["objective"], config["masking"]
    images = {"image_size": image_size(config), "in_channels": config["data"]["channels"]}
    name = config["model"]["name"]
    if "stem" in config["model"]:  # a preset of a network that is no ViT
        raise ValueError(
            f"model.name={name!r} is not a VisionTransformer, whose patches can be hidden: choose one such as "
            f"vit_small_patch16_224; train_finetune.py checkpoint=null trains others, with labels"
        )
    if objective["name"] not in OBJECTIVES:
        raise ValueError(f"objective.name={objective['name']!r} is unknown: choose one of {', '.join(OBJECTIVES)}")
    if masking["name"] in SAMPLERS and masking["name"] != OBJECTIVES[objective["name"]]:
        raise ValueError(
            f"masking={masking['name']} does not fit objective={objective['name']}: it takes "
            f"masking={OBJECTIVES[objective['name']]}, so leave masking out"
        )
    if objective["name"] == "masked_patch_prediction":
        if config["data"]["bits"] > 8 and objective["target"] != "pixels":
            raise ValueError(
                f"objective.target={objective['target']} counts colours of 8 bits, and data.bits={config['data']['bits']}: "
                f"data.bits=8 reads the images so, objective.target=pixels takes them as they are"
            )
        return MaskedPatchPredictor(Encoder(**images, **config["model"]), objective["target"])
    return create_autoencoder(
        **images,
        decoder=decoder["name"],
        decoder_width=decoder["width"],
        decoder_depth=decoder["depth"],
        decoder_heads=decoder["heads"],
        normalize_pixels=objective["normalize"],
        **config["model"],
    )


def build_untrained(config: Config) -> Encoder:
    """Return the encoder as it was before training; nobody else's random numbers change."""
    with isolate_rng():
        return build_model(config).encoder


def build_probe(setting: Setting, data: ImageData, model: MaskedModel, visible: int) -> OnlineProbe:
    """Return the online probe that the config describes, at a pace that costs little."""
    config, options = setting.config, setting.config["callbacks"]
    step_images = setting.micro_batch * config["trainer"]["accumulate"]
    batch, every = probe_schedule(step_images, model.grid[0] * model.grid[1], visible, model.encoder.width)
    return OnlineProbe(
        data,
        images=options["probe_images"],
        megabytes=options["probe_memory"],
        batch=batch,
        every=every,
        seed=config["seed"],
    )


def prepare(config: Config, overrides: Sequence[str] = ()) -> Pretraining:
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

    splits = open_splits(**config["data"], run_dir=setting.folder.path)
    look = inspect_images(splits.train)
    choose_images_and_model(choices, look, setting.machine, load_preset)
    choose_loading(choices, look, setting.machine, setting.devices)
    choose_pretraining(choices, look.count, setting.machine, setting.shares)

    model = build_model(config)
    if config["trainer"]["grad_checkpointing"]:
        model.encoder.set_grad_checkpointing()
    sampler = create_sampler(**config["masking"])
    visible = sampler.check(model.grid)
    data = build_data(setting, splits, model.encoder)
    optimization = build_optimization(setting, model.encoder, data.steps_per_epoch)
    module = PretrainingModule(model, sampler, optimization, validation_images=len(splits.val), seed=config["seed"])
    if config["trainer"]["compile"]:
        model.compile()

    options = config["callbacks"]
    pictures = ReconstructionPictures(
        setting.folder.path / "pictures", data, options["pictures"], options["picture_times"], save_reconstructions
    )
    labelled = bool(splits.train.classes)
    patches = model.grid[0] * model.grid[1]
    seen = patches if config["masking"]["name"] == "corruption" else visible
    probe = build_probe(setting, data, model, seen) if options["probe"] and labelled else None
    measurements = Measurements(
        KnnProbe(data, options["knn_bank"], options["knn_queries"]),
        options["knn_times"],
        knn=options["knn"] and labelled,
        rank=options["rank"],
        probe=probe,
        untrained=partial(build_untrained, config),
    )
    alarms = Alarms(measurements, optimization, workers=config["data"]["num_workers"])
    callbacks = [*([pictures] if options["pictures"] else []), *([probe] if probe else []), measurements, alarms]
    trainer, progress = Run.build_trainer(setting, optimization.total_steps, "val_loss", "min", callbacks)

    job = Pretraining(setting, data, module, trainer, progress, pictures, measurements, alarms)
    job.show_summary(
        "Pretraining",
        [
            ("data", f"{look}; validation: {len(splits.val):,}, {splits.origin}"),
            *model_rows(model.encoder, model),
            ("masking", sampler.describe(model.grid)),
            *optimization_rows(
                optimization, model, config["optim"]["base_lr"], config["batch_size"], setting.micro_batch
            ),
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
        if config["callbacks"]["pictures"]:
            self.pictures.draw(self.module, self.setting.folder.path / "pictures" / "reconstructions.png")
        results = {
            "stage": "pretrain",
            "val_loss": scores["val_loss"],
            "epochs": config["epochs"],
            "steps": self.trainer.global_step,
            "images_seen": self.trainer.global_step * config["batch_size"],
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "objective": config["objective"]["name"],
            "normalize_pixels": model.normalize_pixels,
            **self._measured(),
            "alarms": self.alarms.sentences,
        }
        return self.finish(model.encoder, results, pretraining_verdicts(results))

    def _measured(self) -> dict[str, float]:
        """Return the figures of the trained encoder, of the same one before training, and of raw pixels."""
        self.say("measuring frozen features", style="dim")
        figures = self.measurements.results(self.trainer, self.module)
        if "knn_top1" in figures:
            protocol = self.measurements.protocol
            figures["knn_top1_pixels"] = protocol.accuracy(raw_pixels, self.module.mean, self.module.std)
        return figures
