"""A class for every pixel: backbone, neck and head."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mae.models.backbones.backbone import Backbone, DenseBackbone
from mae.models.cost import meta_twin
from mae.models.layers.pyramids import FPN, LEVELS, NECKS, VTFPN, SimplePyramid, group_norm


class SemanticHead(nn.Module):
    """The head of Kirillov et al. (2019, arXiv 1901.02446, figure 3): each level climbs to the finest, and their sum is classified.

    A level climbs one step by a 3x3 convolution, GroupNorm, ReLU and bilinear upsampling; the finest is convolved where it stands.

    Args:
        in_width: Channels of each map.
        classes: K.
        levels: How many maps.
        width: Channels of the climb.
    """

    def __init__(self, in_width: int, classes: int, levels: int, width: int = 128) -> None:
        super().__init__()
        self.climbs = nn.ModuleList(_Climb(in_width, width, max(1, level)) for level in range(levels))
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return logits (B, K, h, w) of maps (B, C, h_i, w_i), the finest of which is (h, w)."""
        sizes = [part.shape[-2:] for part in maps]
        # Each step goes to the size of the next finer map, not to twice its own, so that odd sizes fit each other.
        climbed = [climb(maps[level], sizes[max(0, level - 1) :: -1]) for level, climb in enumerate(self.climbs)]
        return self.classify(reduce(torch.add, climbed))  # type: ignore[no-any-return]


class Segmenter(nn.Module):
    """Images (B, C, H, W) to logits (B, K, H, W).

    Args:
        backbone: Any that has maps.
        classes: K.
        neck: ``fpn`` or ``vt_fpn`` for a backbone of several maps, ``simple`` for one map; None takes what fits.
        width: Channels of the head.
        tokens: Visual tokens of each level, of ``vt_fpn``.
        token_width: Their width.
        neck_width: Channels of the neck's maps.
        frozen: Leave the backbone as it is, in eval mode.

    Raises:
        ValueError: The neck is unknown or does not fit the backbone, or the backbone has no maps.
    """

    def __init__(
        self,
        backbone: Backbone,
        classes: int,
        *,
        neck: str | None = None,
        width: int = 128,
        tokens: int = 8,
        token_width: int = 1024,
        neck_width: int = 256,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        backbone = require_maps(backbone)
        self.encoder = backbone
        self.neck = _create_neck(backbone, neck, tokens, token_width, neck_width)
        levels = len(backbone.map_widths) if len(backbone.map_widths) > 1 else LEVELS
        self.head = SemanticHead(neck_width, classes, levels, width)
        self._frozen = backbone.freeze_all_but(0 if frozen else None)
        if not frozen:
            backbone.whitening = None  # as a Classifier's
        self.train(self.training)

    def train(self, mode: bool = True) -> Segmenter:
        """Switch mode; a frozen backbone stays in eval mode, its statistics and stochastic depth too."""
        super().train(mode)
        for part in self._frozen:
            part.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K, H, W)."""
        logits = self.head(self.neck(self.encoder.maps(images)))
        return _resize(logits, images.shape[-2:])


def require_maps(backbone: Backbone) -> DenseBackbone:
    """Return a backbone that has maps, or raise the ValueError that says what to take in its place."""
    if not isinstance(backbone, DenseBackbone):
        raise ValueError(f"model.name={backbone.name!r} has no feature maps to segment{backbone.instead_of_maps()}")
    return backbone


def _create_neck(
    backbone: DenseBackbone, neck: str | None, tokens: int, token_width: int, out: int
) -> FPN | VTFPN | SimplePyramid:
    widths, several = backbone.map_widths, len(backbone.map_widths) > 1
    name = neck or ("fpn" if several else "simple")
    if name not in NECKS:
        raise ValueError(f"task.neck={name!r} is unknown: choose one of {', '.join(NECKS)}")
    if several == (name == "simple"):
        has, fits = ("several maps", "fpn or vt_fpn") if several else ("one map", "simple")
        raise ValueError(f"task.neck={name} does not fit {backbone.name}, which gives {has}: choose {fits}")
    if name == "simple":
        return SimplePyramid(widths[0], backbone.map_strides[0], out)
    if name == "fpn":
        return FPN(widths, out)
    images = torch.empty(1, backbone.in_channels, *backbone.image_size, device="meta")
    with torch.no_grad():
        maps = meta_twin(backbone).maps(images)
    grids = [(int(part.shape[2]), int(part.shape[3])) for part in maps]
    return VTFPN(widths, grids, tokens, token_width, out)


class _Climb(nn.Module):
    """One level of the semantic head, (B, C, h, w) to (B, width, *the last size)."""

    def __init__(self, in_width: int, width: int, steps: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width if step else in_width, width, 3, padding=1, bias=False), group_norm(width), nn.ReLU()
            )
            for step in range(steps)
        )

    def forward(self, part: Tensor, sizes: Sequence[Sequence[int]]) -> Tensor:
        for step, size in zip(self.steps, sizes, strict=True):
            part = _resize(step(part), size)
        return part


def _resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    if maps.shape[-2:] == torch.Size(size):
        return maps
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)
