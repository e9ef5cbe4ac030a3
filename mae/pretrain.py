"""The first stage: prepare a pretraining run, run it, report it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch

from mae.assembly import load_preset
from mae.checks import Config
from mae.data.load import load_splits
from mae.data.look import look_at
from mae.defaults import choose_images_and_model, choose_loading, choose_pretraining
from mae.evaluation.features import frozen, raw_pixels
from mae.evaluation.knn_probe import KnnProbe
from mae.evaluation.verdict import pretraining_verdicts
from mae.masking.samplers import create_sampler
from mae.models.autoencoder import MaskedAutoencoder, create_autoencoder
from mae.report.pictures import save_reconstructions
from mae.stage import Stage, build_data, build_optimization, image_size, open_setting
from mae.training.callbacks import KnnAccuracy, ReconstructionPictures
from mae.training.pretraining import PretrainingModule
from mae.training.summary import model_rows, optimization_rows


def build_model(config: Config) -> MaskedAutoencoder:
    """Build the autoencoder of a config whose every value is chosen; the seed decides its weights."""
    L.seed_everything(config["seed"], verbose=False)
    decoder = config["decoder"]
    return create_autoencoder(
        image_size=image_size(config),
        in_channels=config["data"]["channels"],
        decoder=decoder["name"],
        decoder_width=decoder["width"],
        decoder_depth=decoder["depth"],
        decoder_heads=decoder["heads"],
        normalize_pixels=config["objective"]["normalize"],
        **config["model"],
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
    config, chooser = setting.config, setting.chooser

    splits = load_splits(config["data"])
    look = look_at(splits.train)
    choose_images_and_model(chooser, look, setting.machine, load_preset)
    choose_loading(chooser, look, setting.machine, setting.devices)
    choose_pretraining(chooser, look.count, setting.machine, setting.shares)

    model = build_model(config)
    if config["trainer"]["grad_checkpointing"]:
        model.encoder.vit.set_grad_checkpointing()
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
    probe = (
        KnnProbe(data, options["knn_bank"], options["knn_queries"]) if options["knn"] and splits.train.classes else None
    )
    callbacks: list[L.Callback] = [pictures] if options["pictures"] else []
    if probe is not None:
        callbacks.append(KnnAccuracy(probe, options["knn_times"]))
    trainer, progress = Stage.build_trainer(setting, optimization.total_steps, "val_loss", "min", callbacks)

    job = Pretraining(setting, data, module, trainer, progress, pictures, probe)
    patches = model.grid[0] * model.grid[1]
    job.show_summary(
        "Pretraining",
        [
            ("data", f"{look}; validation: {len(splits.val):,}, {splits.origin}"),
            *model_rows(model.encoder, model),
            ("masking", f"{sampler.ratio:.0%}: the encoder sees {visible} of {patches} patches"),
            *optimization_rows(
                optimization, model, config["optim"]["base_lr"], config["batch_size"], setting.micro_batch
            ),
        ],
    )
    return job


@dataclass
class Pretraining(Stage):
    """A pretraining run, ready to go."""

    module: PretrainingModule
    pictures: ReconstructionPictures
    probe: KnnProbe | None

    def run(self) -> Mapping[str, Any]:
        """Train, measure, and write the encoder, results.json and report.html; return the results."""
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
            "normalize_pixels": model.normalize_pixels,
            **self._knn(),
        }
        return self.finish(model.encoder, results, pretraining_verdicts(results))

    def _knn(self) -> dict[str, float]:
        """Measure the trained encoder beside the same one at random weights, and beside raw pixels."""
        if self.probe is None:
            return {}
        self.say("measuring kNN on frozen features: trained, random, raw pixels", style="dim")
        mean, std, pool = self.module.mean, self.module.std, self.probe.pool
        with torch.random.fork_rng():
            random = build_model(self.setting.config).encoder.to(mean.device)
        return {
            "knn_top1": self.probe.accuracy(frozen(self.module.model.encoder, pool), mean, std),
            "knn_top1_random": self.probe.accuracy(frozen(random, pool), mean, std),
            "knn_top1_pixels": self.probe.accuracy(raw_pixels, mean, std),
        }
