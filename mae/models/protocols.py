"""The second stage by name: which head, which pooling or neck, and how much of the encoder learns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from mae.models.backbones.backbone import Backbone
from mae.models.classifier import Classifier
from mae.models.heads import AttentiveHead, LinearHead, MLPHead
from mae.models.segmenter import Segmenter

PROTOCOLS = ("linear_probe", "mlp_probe", "attentive_probe", "partial_finetune", "finetune")
PROBES = ("linear_probe", "mlp_probe", "attentive_probe")
"""Protocols that leave the encoder as it is."""
HEADS = ("linear", "mlp")


def create_classifier(encoder: Backbone, classes: int, protocol: Mapping[str, Any]) -> Classifier:
    """Return encoder, pooling and head as a protocol has them.

    Args:
        encoder: Pretrained or random; what the protocol freezes is frozen.
        classes: K.
        protocol: ``name``, and the options of its config group.

    Raises:
        ValueError: The protocol is unknown, or its options do not fit the encoder.
    """
    name, width = protocol["name"], encoder.width
    std = protocol["head_std"]
    head: nn.Module
    kind = "mlp" if name == "mlp_probe" else protocol.get("head", "linear")
    if kind not in HEADS:
        raise ValueError(f"protocol.head={kind!r} is unknown: choose one of {', '.join(HEADS)}")
    if kind == "mlp":
        head = MLPHead(
            width,
            classes,
            hidden=protocol["hidden"],
            activation=protocol["activation"],
            batch_norm=protocol.get("batch_norm", False),
            init_std=std,
        )
    elif name == "attentive_probe":
        heads = protocol["heads"] or encoder.heads
        if heads is None:
            raise ValueError(f"protocol.heads is missing: {encoder.config['name']} does not say how many it has")
        norm, ratio = protocol["batch_norm"], protocol["mlp_ratio"]
        head = AttentiveHead(width, classes, heads=heads, mlp_ratio=ratio, batch_norm=norm, init_std=std)
    elif name in PROTOCOLS:
        head = LinearHead(width, classes, batch_norm=protocol.get("batch_norm", False), init_std=std)
    else:
        raise ValueError(f"protocol.name={name!r} is unknown: choose one of {', '.join(PROTOCOLS)}")
    blocks = {"finetune": None, "partial_finetune": protocol.get("blocks")}.get(name, 0)
    pool = "all" if name == "attentive_probe" else protocol["pool"]
    if name == "partial_finetune" and not blocks:
        raise ValueError(
            "protocol.blocks=0 tunes nothing: protocol=linear_probe does that, or choose 0.5 (the last MLP)"
        )
    return Classifier(encoder, head, pool=pool, blocks=blocks)


def create_segmenter(encoder: Backbone, classes: int, task: Mapping[str, Any], *, frozen: bool = False) -> Segmenter:
    """Return encoder, neck and head as the config group ``task`` has them; ``frozen`` leaves the encoder as it is.

    Raises:
        ValueError: The neck is unknown, or does not fit the encoder.
    """
    return Segmenter(
        encoder,
        classes,
        neck=task["neck"],
        neck_width=task["neck_width"],
        width=task["width"],
        tokens=task["tokens"],
        token_width=task["token_width"],
        frozen=frozen,
    )
