"""VT-ResNets: the last stage of a ResNet made of visual tokens (Wu et al. 2020, arXiv 2006.03677)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mae.models.backbones.backbone import Backbone
from mae.models.backbones.convnet import feature_stages, map_grids
from mae.models.layers.patches import as_pair
from mae.models.layers.visual_transformer import VisualTransformer, check_tokens

VT_RESNETS = {
    "vt_resnet18": ("resnet18", 2),
    "vt_resnet34": ("resnet34", 3),
    "vt_resnet50": ("resnet50", 3),
    "vt_resnet101": ("resnet101", 3),
}
"""The ResNet of timm, and how many modules stand in place of its last stage: as many as that has blocks."""
STRIDE_16 = 3
MIN_WIDTH = 512


class VTResNet(Backbone):
    """A ResNet up to stride 16, then visual transformers; the mean of their tokens goes to a classifier.

    Args:
        name: One of VT_RESNETS.
        image_size: Side or (H, W) in pixels.
        in_channels: C.
        stem: ``small`` for images of 32 to 64 pixels, as ConvNet's.
        tokens: L.
        token_width: C_T.
        drop_path: Stochastic depth of the convolutional stages, as in the whole ResNet.
        options: Further arguments of timm's ResNet.

    Raises:
        ValueError: The name is unknown, or there are more tokens than pixels at stride 16; or C_T is no multiple of 4.
    """

    def __init__(
        self,
        name: str,
        image_size: int | tuple[int, int] = 224,
        in_channels: int = 3,
        *,
        stem: str | None = None,
        tokens: int = 16,
        token_width: int = 1024,
        drop_path: float = 0.0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if name not in VT_RESNETS:
            raise ValueError(f"model.name={name!r} is no VT-ResNet: choose one of {', '.join(VT_RESNETS)}")
        resnet, modules = VT_RESNETS[name]
        self.image_size = as_pair(image_size)
        self.in_channels = in_channels
        self.stages = feature_stages(resnet, in_channels, (STRIDE_16,), stem=stem, drop_path=drop_path, options=options)
        (grid,) = map_grids(name, self.stages, in_channels, self.image_size)
        remedy = "larger images" if stem else "larger images, or model.stem=small"
        check_tokens("model.tokens", tokens, grid, remedy)
        (channels,) = self.stages.feature_info.channels()
        width = max(channels, MIN_WIDTH)
        self.widen = nn.Linear(channels, width, bias=False) if channels < width else nn.Identity()
        # Keys as wide as the tokens bring the costs near the published ones; a quarter, as a pyramid has, leaves VT-R18 19% short.
        self.transformers = nn.ModuleList(
            VisualTransformer(
                width, tokens, token_width, key_width=token_width, recurrent=number > 0, project=number < modules - 1
            )
            for number in range(modules)
        )
        self.width = token_width
        self.config = {
            "name": name,
            "image_size": list(self.image_size),
            "in_channels": in_channels,
            "stem": stem,
            "tokens": tokens,
            "token_width": token_width,
            "options": dict(options or {}),
        }

    def forward(self, images: Tensor) -> Tensor:
        """Return the visual tokens (B, L, C_T) of images (B, C, H, W)."""
        self.check_images(images)
        features = self.widen(self.stages(images)[0].flatten(2).transpose(1, 2))
        tokens: Tensor | None = None
        for transformer in self.transformers:
            features, tokens = transformer(features, tokens)
        assert tokens is not None, "a VT-ResNet has at least one module"
        return tokens

    def instead_of_maps(self) -> str:
        """Return how a message goes on that says that it has no maps: tokens have no places."""
        return f", its last stage is made of tokens: take model.name={VT_RESNETS[self.name][0]} with task.neck=vt_fpn"
