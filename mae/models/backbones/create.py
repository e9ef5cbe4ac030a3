"""Backbones by name: a ViT, a VT-ResNet, or most convolutional networks of timm."""

from __future__ import annotations

import inspect
from typing import Any

from timm.models.vision_transformer import VisionTransformer

from mae.models.backbones.backbone import Backbone
from mae.models.backbones.convnet import ConvNet
from mae.models.backbones.encoder import Encoder
from mae.models.backbones.timm_models import meta_model
from mae.models.backbones.vt_resnet import VT_RESNETS, VTResNet


def backbone_class(name: str) -> type[Encoder | VTResNet | ConvNet]:
    """Return what a model of this name is.

    Raises:
        ValueError: Nobody knows the name.
    """
    if name in VT_RESNETS:
        return VTResNet
    return Encoder if isinstance(meta_model(name), VisionTransformer) else ConvNet


def create_backbone(
    name: str, image_size: int | tuple[int, int] = 224, in_channels: int = 3, *, drop_path: float = 0.0, **options: Any
) -> Backbone:
    """Build a backbone for the second stage.

    Args:
        name: A timm ViT or convolutional network, or ``vt_resnet18``, 34, 50 or 101.
        image_size: Side or (H, W) in pixels.
        in_channels: C.
        drop_path: Stochastic depth at the last layer.
        **options: Of its class; what is None there is its own default.

    Raises:
        ValueError: The name is unknown, an option means nothing to this model, or sizes do not fit.
    """
    kind = backbone_class(name)
    known = inspect.signature(kind).parameters
    # The config group `model` has the keys of a ViT, empty, and fixed positions, which only a ViT has.
    options = {key: value for key, value in options.items() if value is not None}
    strange = [key for key in options if key not in known and key != "positions"]
    if strange:
        raise ValueError(f"model.{strange[0]}={options[strange[0]]} means nothing to {name}: leave it out")
    chosen = {key: value for key, value in options.items() if key in known}
    return kind(name, image_size, in_channels, drop_path=drop_path, **chosen)
