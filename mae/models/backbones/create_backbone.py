"""Backbones by name: a ViT, a VT-ResNet, most convolutional networks of timm, or a class of one's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from timm.models.hiera import Hiera

from mae.components.registry import Registry
from mae.models.backbones.backbone import Backbone, PatchBackbone
from mae.models.backbones.convnet import ConvNet
from mae.models.backbones.encoder import Encoder
from mae.models.backbones.hiera import HieraEncoder
from mae.models.backbones.places import ViT
from mae.models.backbones.timm_models import check_vit, meta_model
from mae.models.backbones.vt_resnet import VT_RESNETS
from mae.models.layers.patches import as_pair

BACKBONES = Registry(
    "model",
    Backbone,  # type: ignore[type-abstract]
    dict.fromkeys(VT_RESNETS, "mae.models.backbones.vt_resnet.VTResNet"),
)
"""Names beside timm's; a class gets the name that it was asked for by."""


def backbone_class(name: str | None, target: str | None = None, *, masked: bool = False) -> type[Backbone]:
    """Return what a model of this name, or of this path, is.

    Args:
        name: Of timm, or registered.
        target: ``package.module.Class``, in place of a name.
        masked: Whether it is to leave hidden patches out.

    Raises:
        ValueError: Nobody knows the name; or hidden patches cannot be left out of it.
    """
    if target is None and name not in BACKBONES:
        model = meta_model(str(name))
        if masked and not isinstance(model, Hiera):
            check_vit(str(name), model)
        if isinstance(model, Hiera):
            return HieraEncoder
        return Encoder if isinstance(model, ViT) else ConvNet
    kind = BACKBONES.resolve(name, target)
    if masked and not issubclass(kind, PatchBackbone):
        raise ValueError(
            f"model={target or name} is no PatchBackbone: hidden patches cannot be left out of it; choose a ViT such as "
            f"vit_small_patch16_224"
        )
    return kind


def create_backbone(
    name: str | None = None,
    image_size: int | tuple[int, int] = 224,
    in_channels: int = 3,
    *,
    drop_path: float = 0.0,
    masked: bool = False,
    _target_: str | None = None,
    **options: Any,
) -> Backbone:
    """Build a backbone.

    A class of one's own is built as ``Class(image_size=(H, W), in_channels=C, **options)``, with ``drop_path`` and ``name`` where
    it takes them.

    Args:
        name: A timm ViT or convolutional network, or a registered name such as ``vt_resnet18``.
        image_size: Side or (H, W) in pixels.
        in_channels: C.
        drop_path: Stochastic depth at the last layer.
        masked: Whether it is to leave hidden patches out, as pretraining needs.
        _target_: The path of a class in place of a name.
        **options: Of its class; what is None there is its own default.

    Raises:
        ValueError: The name is unknown, an option means nothing to this model, or sizes do not fit.
    """
    kind: Callable[..., Backbone] = backbone_class(name, _target_, masked=masked)
    title = name if _target_ is None else _target_
    known = inspect.signature(kind).parameters
    # The config group `model` has the keys of a ViT, empty, and fixed positions, which only a ViT has.
    options = {key: value for key, value in options.items() if value is not None}
    strange = [key for key in options if key not in known and key != "positions" and options[key] != {}]
    if strange:
        raise ValueError(f"model.{strange[0]}={options[strange[0]]} means nothing to {title}: leave it out")
    chosen = {key: value for key, value in options.items() if key in known}
    if "drop_path" in known:
        chosen["drop_path"] = drop_path
    elif drop_path:
        raise ValueError(f"model={title} has no stochastic depth: protocol.drop_path=0 leaves it out")
    if "name" in known and name is not None:
        chosen["name"] = name
    size = as_pair(image_size)
    made = kind(image_size=size, in_channels=in_channels, **chosen)
    if _target_ is not None or not hasattr(made, "config"):
        chosen.pop("drop_path", None)
        called = {"name": name} if _target_ is None else {"_target_": _target_}
        made.config = {**called, "image_size": list(size), "in_channels": in_channels, **chosen}
    return made
