"""Convolutional networks of timm as backbones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch
from timm.models._features import FeatureGetterNet
from torch import Tensor, nn

from mae.models.backbones.backbone import DenseBackbone
from mae.models.backbones.timm_models import known_model, refuse_loading
from mae.models.cost import meta_twin
from mae.models.layers.patches import as_pair

STEMS = ("small",)
LEVELS = 4


class ConvNet(DenseBackbone):
    """Most convolutional networks of timm: the pixels of its last feature map are its tokens.

    The mean over these is global average pooling. ``maps`` gives the last four stages.

    Args:
        name: Of timm, such as ``resnet50`` or ``convnext_tiny``.
        image_size: Side or (H, W) in pixels.
        in_channels: C.
        stem: ``small`` for images of 32 to 64 pixels, which the first two layers of a ResNet would shrink four times: its first
            convolution becomes 3x3 of stride 1, its max pooling is left out. None leaves the network as it is.
        drop_path: Stochastic depth at the last block, rising linearly from 0.
        options: Further arguments of the timm model.

    Raises:
        ValueError: The model or the stem is unknown, it gives no feature maps, or the images are too small for it.
    """

    def __init__(
        self,
        name: str,
        image_size: int | tuple[int, int] = 224,
        in_channels: int = 3,
        *,
        stem: str | None = None,
        drop_path: float = 0.0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.image_size = as_pair(image_size)
        self.in_channels = in_channels
        self.stages = feature_stages(name, in_channels, LEVELS, stem=stem, drop_path=drop_path, options=options)
        map_grids(name, self.stages, in_channels, self.image_size)
        self.width = self.map_widths[-1]
        self.config = {
            "name": name,
            "image_size": list(self.image_size),
            "in_channels": in_channels,
            "stem": stem,
            "options": dict(options or {}),
        }

    def forward(self, images: Tensor) -> Tensor:
        """Return the last map of images (B, C, H, W) as tokens (B, h*w, D), row by row."""
        return self.maps(images)[-1].flatten(2).transpose(1, 2)

    def maps(self, images: Tensor) -> list[Tensor]:
        """Return the maps (B, C_i, h_i, w_i) of the last stages, the finest first."""
        self.check_images(images)
        return list(self.stages(images))

    @property
    def map_widths(self) -> tuple[int, ...]:
        """C_i of each of the ``maps``."""
        return tuple(self.stages.feature_info.channels())

    @property
    def map_strides(self) -> tuple[int, ...]:
        """Pixels of the image to a step on each of the ``maps``."""
        shrunk = 4 if self.config["stem"] == "small" else 1
        return tuple(stride // shrunk for stride in self.stages.feature_info.reduction())


def feature_stages(
    name: str,
    in_channels: int,
    levels: int | Sequence[int],
    *,
    stem: str | None = None,
    drop_path: float = 0.0,
    options: Mapping[str, Any] | None = None,
) -> Any:
    """Return the stages of a timm network, images to a list of maps (B, C_i, h_i, w_i), with timm's ``feature_info``.

    Args:
        name: Of timm.
        in_channels: C of the images.
        levels: Numbers of the stages that give a map, or how many of the last ones do.
        stem: As ConvNet's.
        drop_path: As ConvNet's.
        options: Further arguments of the timm model.

    Raises:
        ValueError: The model or the stem is unknown, or the model gives no feature maps.
    """
    if stem is not None and stem not in STEMS:
        raise ValueError(f"model.stem={stem!r} is unknown: choose {' or '.join(STEMS)}, or leave it out")
    refuse_loading(options or {})
    fixed: dict[str, Any] = {"features_only": True, "out_indices": levels, "in_chans": in_channels}
    if drop_path:
        fixed["drop_path_rate"] = drop_path
    clash = sorted((fixed.keys() | {"drop_path_rate"}) & (options or {}).keys())
    if clash:
        raise ValueError(f"model.options.{clash[0]} is set by the network itself: leave it out of the options")
    try:
        stages = timm.create_model(known_model(name), **fixed, **(options or {}))
    except (TypeError, AssertionError, RuntimeError, LookupError, AttributeError) as error:
        if "drop_path_rate" in str(error):
            raise ValueError(
                f"model.name={name!r} has no stochastic depth: protocol.drop_path=0 leaves it out"
            ) from error
        raise ValueError(f"timm cannot build {name} as stages of feature maps with these options: {error}") from error
    # Networks of one scale need this class, ViTs and MLPs among them; others, such as Swin, put channels last.
    if isinstance(stages, FeatureGetterNet) or getattr(stages, "output_fmt", "NCHW") != "NCHW":
        raise ValueError(
            f"model.name={name!r} is no convolutional network whose stages give maps (B, C, h, w): choose one such as resnet50 "
            f"or convnext_tiny, or a ViT"
        )
    if stem == "small":
        _shrink_stem(name, stages)
    return stages


def map_grids(name: str, stages: nn.Module, in_channels: int, image_size: tuple[int, int]) -> list[tuple[int, int]]:
    """Return (h_i, w_i) of each map.

    Raises:
        ValueError: The images do not go through the network.
    """
    images = torch.empty(1, in_channels, *image_size, device="meta")
    try:
        with torch.no_grad():
            maps = meta_twin(stages)(images)
    except (RuntimeError, AssertionError) as error:
        height, width = image_size
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"data.image_size={height}x{width} does not go through {name}, choose larger images: {reason}"
        ) from error
    return [(int(part.shape[2]), int(part.shape[3])) for part in maps]


def _shrink_stem(name: str, stages: Any) -> None:
    conv, pool = getattr(stages, "conv1", None), getattr(stages, "maxpool", None)
    if not isinstance(conv, nn.Conv2d) or not isinstance(pool, nn.MaxPool2d):
        raise ValueError(
            f"model.stem=small is for ResNets that begin with one 7x7 convolution and max pooling, not for {name}: choose one such "
            f"as resnet18, or leave model.stem out"
        )
    stages.conv1 = nn.Conv2d(conv.in_channels, conv.out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(stages.conv1.weight, mode="fan_out", nonlinearity="relu")
    stages.maxpool = nn.Identity()
