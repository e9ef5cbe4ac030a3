"""How the head of a fine-tuning begins: solved for on the features, and what is in front of it."""

from __future__ import annotations

import math

import lightning as L
import torch
from torch import nn

from mae.config.schema.protocols import Finetune
from mae.config.schema.roots import FinetuneConfig
from mae.data.datamodule import ImageData
from mae.data.source import thinned
from mae.downstream.labelled_data import extract_split
from mae.evaluation.frozen.logistic import LogisticFit, fit_logistic
from mae.models.heads import LinearHead, keep_statistics
from mae.run.setting import Setting
from mae.training.classifying import ClassificationModule

MOST_IMAGES = 10_000
"""Training images that a head is solved for on."""
MOST_VALIDATION = 5000
"""Validation images that choose how strongly it is regularised."""


def start_head(
    protocol: Finetune,
    setting: Setting[FinetuneConfig],
    trainer: L.Trainer,
    module: ClassificationModule,
    data: ImageData,
) -> None:
    """Give the head its start, from the very features that it will be given: of images that nothing changes, in eval mode.

    A linear head that is solved for begins as the logistic regression on these features that does best on validation, so that
    fine-tuning does not pull the features towards a head at random (LP-FT, Kumar et al. 2022, arXiv 2202.10054).

    Args:
        protocol: Of the run.
        setting: Of the run.
        trainer: Knows the device and the precision.
        module: On that device; its head is changed.
        data: Training and validation images.
    """
    head, splits = module.model.head, data.splits
    solved = protocol.head_start == "solved"
    if not solved and protocol.head_norm != "fixed":
        return
    setting.say("solving for the head on frozen features" if solved else "standardising the features", style="dim")
    training = module.training
    module.eval()
    train, *val = (
        extract_split(setting, data, trainer, thinned(source, most), module.model.features)
        for source, most in ((splits.train, MOST_IMAGES), (splits.val, MOST_VALIDATION))[: 2 if solved else 1]
    )
    module.train(training)
    if isinstance(head.norm, nn.BatchNorm1d):
        keep_statistics(head.norm, train[0])
    if solved:
        assert isinstance(head, LinearHead), "build_classifier() refuses others"
        fit = fit_logistic(train, val[0], len(module.classes))
        head.take(*as_classifier(fit, len(train[1])))
        setting.say(f"the head starts at {fit.val_accuracy:.1%} on validation", style="dim")


def as_classifier(fit: LogisticFit, images: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight (K, D) and finite bias (K,) of a fit, on features as they are.

    A class without a training image gets the lowest bias of the others, less the logarithm of their ``images``: rare, as it is, and
    not beyond reach.
    """
    weight = fit.weight.double() / fit.scale.double()
    seen = fit.bias.isfinite()
    bias = fit.bias.where(seen, fit.bias[seen].min() - math.log(images)).double()
    return weight, bias - weight @ fit.mean.double()
