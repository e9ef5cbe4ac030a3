"""A classifier for each protocol: which head, which pooling, and how much of the encoder learns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from mae.config.schema.protocols import (
    AttentiveProbe,
    Finetune,
    LinearProbe,
    MlpProbe,
    PartialFinetune,
    Protocol,
)
from mae.downstream.starting_weights import head_seed
from mae.models.backbones.backbone import Backbone
from mae.models.classifier import Classifier, pooled_width
from mae.models.heads import AttentiveHead, LinearHead, MLPHead


def linear_probe(protocol: LinearProbe, encoder: Backbone, classes: int) -> Classifier:
    """One linear layer on frozen features."""
    head = LinearHead(
        pooled_width(encoder, protocol.pool), classes, batch_norm=protocol.batch_norm, init_std=protocol.head_std
    )
    return Classifier(encoder, head, pool=protocol.pool, blocks=0)


def mlp_probe(protocol: MlpProbe, encoder: Backbone, classes: int) -> Classifier:
    """Two layers on frozen features."""
    head = MLPHead(
        pooled_width(encoder, protocol.pool),
        classes,
        hidden=protocol.hidden,
        activation=protocol.activation,
        batch_norm=protocol.batch_norm,
        init_std=protocol.head_std,
    )
    return Classifier(encoder, head, pool=protocol.pool, blocks=0)


def attentive_probe(protocol: AttentiveProbe, encoder: Backbone, classes: int) -> Classifier:
    """A query that attends to all frozen tokens."""
    heads = protocol.heads or encoder.heads
    if heads is None:
        raise ValueError(f"protocol.heads is missing: {encoder.config['name']} does not say how many it has")
    head = AttentiveHead(
        encoder.width,
        classes,
        heads=heads,
        mlp_ratio=protocol.mlp_ratio,
        batch_norm=protocol.batch_norm,
        init_std=protocol.head_std,
    )
    return Classifier(encoder, head, pool="all", blocks=0)


def finetune(protocol: Finetune, encoder: Backbone, classes: int) -> Classifier:
    """The whole network learns."""
    return _tuned(protocol, encoder, classes, None)


def partial_finetune(protocol: PartialFinetune, encoder: Backbone, classes: int) -> Classifier:
    """The last blocks learn."""
    if not protocol.blocks:
        raise ValueError(
            "protocol.blocks=0 tunes nothing: protocol=linear_probe does that, or choose 0.5 (the last MLP)"
        )
    return _tuned(protocol, encoder, classes, protocol.blocks)


def _tuned(protocol: Finetune, encoder: Backbone, classes: int, blocks: float | None) -> Classifier:
    head: LinearHead | MLPHead
    normalised = protocol.head_norm in ("batch", "fixed")
    if protocol.head == "mlp":
        if protocol.head_start == "solved":
            raise ValueError(
                "protocol.head_start=solved solves for one linear layer, and protocol.head=mlp has two: choose "
                "protocol.head_start=random, or protocol.head=linear"
            )
        head = MLPHead(
            pooled_width(encoder, protocol.pool),
            classes,
            hidden=protocol.hidden,
            activation=protocol.activation,
            batch_norm=normalised,
            init_std=protocol.head_std,
        )
    else:
        head = LinearHead(
            pooled_width(encoder, protocol.pool), classes, batch_norm=normalised, init_std=protocol.head_std
        )
    frozen = [head.norm] if protocol.head_norm == "fixed" else []
    return Classifier(encoder, head, pool=protocol.pool, blocks=blocks, frozen=frozen)


CLASSIFIERS: dict[str, Callable[[Any, Backbone, int], Classifier]] = {
    "linear_probe": linear_probe,
    "mlp_probe": mlp_probe,
    "attentive_probe": attentive_probe,
    "partial_finetune": partial_finetune,
    "finetune": finetune,
}
"""By the name of the protocol, whose options are a class of ``mae.config.schema.protocols``."""


def build_classifier(protocol: Protocol, encoder: Backbone, classes: int, seed: int) -> Classifier:
    """Put a protocol's head on an encoder, and freeze what it freezes.

    Args:
        protocol: One of those in ``CLASSIFIERS``.
        encoder: Pretrained or random.
        classes: K.
        seed: The head's weights follow from it alone, whatever the encoder's.

    Raises:
        ValueError: The options do not fit the encoder.
    """
    torch.manual_seed(head_seed(seed))
    return CLASSIFIERS[protocol.name](protocol, encoder, classes)
