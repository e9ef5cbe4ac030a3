"""Necks: the maps of a backbone to maps of one width, for dense prediction."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from mae.models.layers.visual_transformer import FilterTokenizer, Projector, TokenTransformer, check_tokens

LEVELS = 4


class FPN(nn.Module):
    """Feature pyramid network (Lin et al. 2017, arXiv 1612.03144): coarse maps are added to finer ones, then convolved.

    Args:
        widths: C_i of the maps, the finest first.
        out: Channels of each map that comes out.
    """

    def __init__(self, widths: Sequence[int], out: int = 256) -> None:
        super().__init__()
        self.pyramid = FeaturePyramidNetwork(list(widths), out)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Turn maps (B, C_i, h_i, w_i) into maps (B, out, h_i, w_i)."""
        return list(self.pyramid({str(level): part for level, part in enumerate(maps)}).values())


class VTFPN(nn.Module):
    """A pyramid of visual tokens (Wu et al. 2020, arXiv 2006.03677): every level's tokens meet in one transformer.

    Each level gives its tokens and takes them back, changed by those of the others. That stands in place of the FPN's 3x3
    convolutions and of its way from coarse to fine, at a sixth of the multiply-adds.

    Args:
        widths: C_i of the maps, the finest first.
        grids: (h_i, w_i) of the maps, to see that they hold the tokens.
        tokens: L of each level.
        token_width: C_T.
        out: Channels of each map that comes out.

    Raises:
        ValueError: More tokens are asked for than a map has pixels, or C_T is no multiple of 4.
    """

    def __init__(
        self,
        widths: Sequence[int],
        grids: Sequence[tuple[int, int]],
        tokens: int = 8,
        token_width: int = 1024,
        out: int = 256,
    ) -> None:
        super().__init__()
        for grid in grids:
            check_tokens("task.tokens", tokens, grid, "larger images, or task.neck=fpn")
        self.tokens = tokens
        self.laterals = nn.ModuleList(nn.Conv2d(width, out, 1) for width in widths)
        self.tokenizers = nn.ModuleList(FilterTokenizer(out, tokens, token_width) for _ in widths)
        self.transformer = TokenTransformer(token_width)
        self.projectors = nn.ModuleList(Projector(out, token_width, token_width // 4) for _ in widths)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Turn maps (B, C_i, h_i, w_i) into maps (B, out, h_i, w_i)."""
        features = [lateral(part).flatten(2).transpose(1, 2) for lateral, part in zip(self.laterals, maps, strict=True)]
        drawn = [tokenizer(part) for tokenizer, part in zip(self.tokenizers, features, strict=True)]
        tokens = self.transformer(torch.cat(drawn, dim=1)).split(self.tokens, dim=1)
        enriched = [
            projector(part, own) for projector, part, own in zip(self.projectors, features, tokens, strict=True)
        ]
        return [
            part.transpose(1, 2).unflatten(2, source.shape[2:]) for part, source in zip(enriched, maps, strict=True)
        ]


class SimplePyramid(nn.Module):
    """A pyramid from the one map of a ViT, after ViTDet (Li et al. 2022, arXiv 2203.16527), lighter: one chain, 1x1 in front.

    Args:
        width: C of the map.
        stride: P, pixels of the image to a step on it. Four maps come out, at P/4, P/2, P and 2P; those of patches below 4 pixels
            begin later, since below a stride of 1 there would be nothing more to see.
        out: Channels of each map that comes out.
    """

    def __init__(self, width: int, stride: int, out: int = 256) -> None:
        super().__init__()
        finer = min(2, int(math.log2(stride)))
        self.lateral = nn.Sequential(nn.Conv2d(width, out, 1, bias=False), group_norm(out))
        self.finer = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose2d(out, out, 2, stride=2, bias=False), group_norm(out), nn.GELU())
            for _ in range(finer)
        )
        # Rounding up keeps a map of one pixel at one.
        self.coarser = nn.ModuleList(nn.MaxPool2d(2, ceil_mode=True) for _ in range(LEVELS - 1 - finer))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Turn one map (B, C, h, w) into four (B, out, h_i, w_i), the finest first."""
        (only,) = maps
        pyramid = [self.lateral(only)]
        for layer in self.finer:
            pyramid.insert(0, layer(pyramid[0]))
        for layer in self.coarser:
            pyramid.append(layer(pyramid[-1]))
        return pyramid


NECKS: dict[str, type[FPN | VTFPN | SimplePyramid]] = {"fpn": FPN, "vt_fpn": VTFPN, "simple": SimplePyramid}


def group_norm(width: int) -> nn.GroupNorm:
    """Return a GroupNorm of 32 groups, or of fewer where the width is small, so that each has four channels at least."""
    return nn.GroupNorm(min(math.gcd(32, width), max(1, width // 4)), width)
