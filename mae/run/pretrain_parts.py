"""The parts that a pretraining run alone has: its model, and what watches it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import lightning as L
import torch
from lightning.pytorch.utilities.seed import isolate_rng

from mae.components.registry import Part
from mae.config.choosing.measuring import Measuring, choose_measuring
from mae.config.class_options import component_class
from mae.config.schema.components import TARGET
from mae.config.schema.roots import PretrainConfig
from mae.data.datamodule import ImageData
from mae.evaluation.frozen.solved_probes import ValidationImages
from mae.masking.samplers import MASKINGS, MaskSampler
from mae.masking.seeds import VALIDATION, seeded_generator
from mae.models.backbones.backbone import PatchBackbone
from mae.models.cost import multiply_adds, training_multiply_adds
from mae.models.create_masked_model import create_masked_model
from mae.models.masked_model import MaskedModel
from mae.report.pictures import save_reconstructions
from mae.run.setting import Setting, image_size
from mae.training.callbacks.alarms import Alarms
from mae.training.callbacks.drawing import ReconstructionPictures
from mae.training.callbacks.measurements import Measurements
from mae.training.optimization import Optimization


def check_backbone(config: PretrainConfig) -> None:
    """Refuse a network that needs every patch in its place.

    Raises:
        ValueError: It is one; the message says what trains it.
    """
    model = config.model
    kind = component_class("model", model.name, model.class_path)
    if kind is not None and not issubclass(kind, PatchBackbone):
        key = "model.name" if model.class_path is None else f"model.{TARGET}"
        raise ValueError(
            f"{key}={model.title!r} is no ViT, whose patches can be hidden: choose a ViT such as "
            f"vit_small_patch16_224; train_finetune.py checkpoint=null trains convolutional networks, with labels"
        )


def build_model(config: PretrainConfig) -> MaskedModel:
    """Build the model of a config whose every value is chosen; the seed decides its weights.

    Raises:
        ValueError: The objective is unknown, or does not fit the model or the images.
    """
    L.seed_everything(config.seed, verbose=False)
    decoder, objective = config.decoder, config.objective
    images = {"image_size": image_size(config), "in_channels": config.data.channels}
    return create_masked_model(
        {**images, "_target_": config.model.class_path, **config.model.arguments},
        Part(decoder.name, decoder.class_path, decoder.options),
        Part(objective.name, objective.class_path, objective.options),
        bits=config.data.bits,
    )


def build_sampler(config: PretrainConfig, model: MaskedModel) -> MaskSampler:
    """Build what draws the masks.

    Raises:
        ValueError: The masking is unknown, or leaves nothing to the objective or the grid.
    """
    masking = config.masking
    sampler = MASKINGS.create(name=masking.name, target=masking.class_path, options=masking.options)
    model.objective.check_masking(masking.class_path or str(masking.name), sampler.hides)
    sampler.check(model.grid)
    return sampler


def count_costs(model: MaskedModel, sampler: MaskSampler) -> tuple[int, int]:
    """Return the multiply-adds of a training step on one image, and those of encoding one whole."""
    step = training_multiply_adds(model, sampler(1, model.grid, seeded_generator("cpu", VALIDATION)))
    return step, multiply_adds(model.encoder, torch.zeros(1, model.encoder.in_channels, *model.encoder.image_size))


def build_untrained(config: PretrainConfig) -> PatchBackbone:
    """Return the encoder as it was before training; nobody else's random numbers change."""
    with isolate_rng():
        return build_model(config).encoder


PROBE_PASSES = 3000
"""Multiply-adds that solving a probe takes of each feature of an image, for each class: some 200 iterations over all strengths,
of a product forwards and one back, at a fifth of the speed of an encoder's. With them pixels, kNN and RankMe are paid for."""


def choose_measured(setting: Setting[PretrainConfig], data: ImageData, width: int, cost: int, whole: int) -> Measuring:
    """Choose how often the features are measured, and on how many images, so that it costs little beside training.

    Reading, decoding and augmenting are left out of both.

    Args:
        setting: Of a run whose length is known.
        data: Its images.
        width: D of the encoder.
        cost: Multiply-adds of a training step on one image.
        whole: Those of encoding one whole.
    """
    config = setting.config
    solved = PROBE_PASSES * width * len(data.splits.train.classes) if config.callbacks.probe else 0
    return choose_measuring(
        setting.choices,
        setting.steps_of(data.steps_per_epoch) * config.epochs * config.batch_size,
        len(data.splits.train),
        len(data.splits.val),
        (whole + solved) / cost,
        whole / cost,
    )


@dataclass
class Observers:
    """What watches a pretraining run, and changes nothing of it."""

    pictures: ReconstructionPictures
    measurements: Measurements
    alarms: Alarms

    @property
    def callbacks(self) -> list[L.Callback]:
        """Those that are asked for, in the order in which they work: alarms judge what was measured."""
        drawn = [self.pictures] if self.pictures.images else []
        return [*drawn, self.measurements, self.alarms]


def build_observers(
    setting: Setting[PretrainConfig],
    data: ImageData,
    measuring: Measuring,
    optimization: Optimization,
) -> Observers:
    """Return pictures, measurements and alarms as the config describes them; accuracies need labels."""
    config, options = setting.config, setting.config.callbacks
    labelled = bool(data.splits.train.classes)
    measurements = Measurements(
        ValidationImages(data, measuring.bank, measuring.queries),
        measuring.times,
        knn=options.knn and labelled,
        rank=options.rank,
        probe=options.probe and labelled,
        untrained=partial(build_untrained, config),
    )
    return Observers(
        ReconstructionPictures(
            setting.folder.path / "pictures", data, options.pictures, options.picture_times, save_reconstructions
        ),
        measurements,
        Alarms(measurements, optimization, workers=config.data.num_workers),
    )
