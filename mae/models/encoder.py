"""The encoder: any timm VisionTransformer, run on the visible patches alone."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import partial
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.layers import PatchEmbed
from timm.models import checkpoint_seq
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mae.masking.plan import MaskPlan, gather_patches
from mae.models.backbone import Backbone
from mae.models.patches import as_pair, patch_grid, patchify
from mae.models.positions import sincos_positions

POSITIONS = ("sincos", "learned")


class Encoder(Backbone):
    """A timm VisionTransformer that embeds and processes only the patches that a plan keeps.

    Args:
        name: Any timm ViT, such as ``vit_base_patch16_224``; its class and register tokens are kept.
        image_size: Side or (H, W) in pixels; the patch must divide it.
        in_channels: C.
        patch_size: P; None takes the timm model's own.
        positions: ``sincos`` (fixed, as in the paper) or ``learned``.
        width: D; None takes the timm model's own, as for depth, heads and mlp_ratio.
        depth: Number of blocks.
        heads: Attention heads per block.
        mlp_ratio: Hidden width of the MLP over D.
        norm_eps: Epsilon of every LayerNorm; timm's and the paper's is 1e-6.
        drop_path: Stochastic depth at the last block, rising linearly from 0.
        options: Further arguments of the timm model.

    Raises:
        ValueError: The model is unknown or no ViT, or the sizes do not fit.
    """

    def __init__(
        self,
        name: str,
        image_size: int | tuple[int, int] = 224,
        in_channels: int = 3,
        *,
        patch_size: int | None = None,
        positions: str = "sincos",
        width: int | None = None,
        depth: int | None = None,
        heads: int | None = None,
        mlp_ratio: float | None = None,
        norm_eps: float = 1e-6,
        drop_path: float = 0.0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if positions not in POSITIONS:
            raise ValueError(f"model.positions={positions!r} is unknown: choose one of {', '.join(POSITIONS)}")
        self.image_size = as_pair(image_size)
        chosen = {
            "patch_size": patch_size,
            "embed_dim": width,
            "depth": depth,
            "num_heads": heads,
            "mlp_ratio": mlp_ratio,
        }
        chosen = {key: value for key, value in chosen.items() if value is not None}
        P = patch_size or _own_patch_size(name)
        self.grid = patch_grid(self.image_size, P)
        w, h = chosen.get("embed_dim"), chosen.get("num_heads")
        if w and h and w % h:
            raise ValueError(f"model.width={w} is not divisible by model.heads={h}")
        fixed = {
            "img_size": self.image_size,
            "in_chans": in_channels,
            "num_classes": 0,
            # No pooling and no fc_norm: `norm` ends the trunk, and no parameter is left without a gradient.
            "global_pool": "",
            "fc_norm": False,
            "norm_layer": partial(nn.LayerNorm, eps=norm_eps),
            "drop_path_rate": drop_path,
            **chosen,
        }
        clash = sorted(fixed.keys() & (options or {}).keys())
        if clash:
            raise ValueError(f"model.options.{clash[0]} is set by the encoder itself: leave it out of the options")
        self.vit = _create_vit(name, **fixed, **(options or {}))
        self.patch_size = P
        self.in_channels = in_channels
        self.width: int = self.vit.embed_dim
        self.depth: int = len(self.vit.blocks)
        self.num_prefix_tokens: int = self.vit.num_prefix_tokens
        self.config: dict[str, Any] = {
            "name": name,
            "image_size": list(self.image_size),
            "in_channels": in_channels,
            "patch_size": P,
            "positions": positions,
            "width": self.width,
            "depth": self.depth,
            "heads": heads,
            "mlp_ratio": mlp_ratio,
            "norm_eps": norm_eps,
            "options": dict(options or {}),
        }
        initialize_mae(self.vit)
        if positions == "sincos":
            self._fix_sincos()

    def forward(self, images: Tensor, plan: MaskPlan | None = None) -> Tensor:
        """Encode images (B, C, H, W) to tokens (B, prefix + V, D), normalised.

        With a plan only its visible patches enter, in the plan's order. Without one every patch is seen, and the result
        equals timm's ``forward_features``: inference never masks.
        """
        return self.vit.norm(self.trunk(images, plan))  # type: ignore[no-any-return]

    def trunk(self, images: Tensor, plan: MaskPlan | None = None) -> Tensor:
        """Do what ``forward`` does, all but the last norm."""
        self.check_images(images)
        vit = self.vit
        tokens = vit._pos_embed(vit.patch_embed(images)) if plan is None else self._embed_visible(images, plan)
        run = partial(checkpoint_seq, vit.blocks) if vit.grad_checkpointing else vit.blocks
        return run(vit.norm_pre(tokens))  # type: ignore[no-any-return]

    def _embed_visible(self, images: Tensor, plan: MaskPlan) -> Tensor:
        """Embed the visible patches and add their positions: (B, C, H, W) to (B, prefix + V, D)."""
        if plan.grid != self.grid:
            raise ValueError(f"a plan for a {plan.grid} grid does not fit the encoder's {self.grid}")
        vit, B = self.vit, images.shape[0]
        visible = gather_patches(patchify(images, self.patch_size), plan.keep)
        # The patch convolution touches each patch once, so on single patches it is a matrix product. The patches are turned to
        # the weight's (C, P, P) and not the other way round: DDP wants a gradient that lies in memory as its weight does.
        V, P = visible.shape[1], self.patch_size
        visible = visible.reshape(B, V, P, P, -1).permute(0, 1, 4, 2, 3).flatten(2)
        tokens = F.linear(visible, vit.patch_embed.proj.weight.flatten(1), vit.patch_embed.proj.bias)
        tokens = vit.patch_embed.norm(tokens)
        prefix = [token.expand(B, -1, -1) for token in (vit.cls_token, vit.reg_token) if token is not None]
        if vit.pos_embed is not None:
            rows = self.position_prefix
            tokens = tokens + gather_patches(vit.pos_embed[:, rows:].expand(B, -1, -1), plan.keep)
            if rows:
                prefix = [torch.cat(prefix, dim=1) + vit.pos_embed[:, :rows]]
        return vit.pos_drop(torch.cat([*prefix, tokens], dim=1))  # type: ignore[no-any-return]

    def maps(self, images: Tensor) -> list[Tensor]:
        """Return the patch tokens in their places: one map (B, D, Gh, Gw)."""
        patches = self(images)[:, self.num_prefix_tokens :]
        return [patches.transpose(1, 2).unflatten(2, self.grid)]

    @property
    def map_widths(self) -> tuple[int, ...]:
        """D."""
        return (self.width,)

    @property
    def map_strides(self) -> tuple[int, ...]:
        """P."""
        return (self.patch_size,)

    @property
    def has_class_token(self) -> bool:
        """Whether the first token is a class token."""
        return self.vit.cls_token is not None

    def describe(self) -> str:
        """Return what a person reads in the summary of a run."""
        height, width = self.image_size
        return (
            f"{self.config['name']}: {self.depth} blocks of width {self.width}, {height}x{width} px in "
            f"{self.grid[0]}x{self.grid[1]} patches of {self.patch_size}, {self.in_channels} channels"
        )

    @property
    def position_prefix(self) -> int:
        """Rows of the position table that belong to class and register tokens."""
        return 0 if self.vit.no_embed_class else self.num_prefix_tokens

    def _fix_sincos(self) -> None:
        table = self.vit.pos_embed
        if table is None:
            raise ValueError(f"{self.config['name']} has no position table: model.positions=sincos has nothing to fill")
        with torch.no_grad():
            table.copy_(sincos_positions(self.grid, self.width, self.position_prefix))
        table.requires_grad_(False)


def initialize_mae(module: nn.Module) -> None:
    """Initialise as MAE does: Linear and the patch convolution (as a flat Linear) Xavier-uniform, biases zero, norms one,
    class, register and mask tokens normal with deviation 0.02.
    """  # noqa: D205
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(
                part.weight.flatten(1) if isinstance(part, nn.Linear) else part.weight.data.flatten(1)
            )
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
    for name, parameter in module.named_parameters():
        if name.rpartition(".")[2] in ("cls_token", "reg_token", "mask_token"):
            nn.init.normal_(parameter, std=0.02)


def _known(name: str) -> str:
    if not timm.is_model(name.partition(".")[0]):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "timm.list_models('vit*') lists them"
        raise ValueError(f"model.name={name!r} is not a timm model: {hint}")
    return name


def _own_patch_size(name: str) -> int:
    """Return the patch side of a timm ViT, or raise where it is no ViT with one patch embedding."""
    with torch.device("meta"):
        vit = timm.create_model(_known(name), num_classes=0)
    _check_vit(name, vit)
    height, width = vit.patch_embed.patch_size
    if height != width:
        raise ValueError(f"{name} has patches of {height}x{width}: only square patches are supported")
    return int(height)


def _create_vit(name: str, **arguments: Any) -> VisionTransformer:
    try:
        vit = timm.create_model(_known(name), **arguments)
    except (TypeError, AssertionError) as error:
        with torch.device("meta"):
            _check_vit(name, timm.create_model(name))
        raise ValueError(f"timm cannot build {name} with these options: {error}") from error
    _check_vit(name, vit)
    return vit


def _check_vit(name: str, model: nn.Module) -> None:
    kind = type(model).__name__
    if not isinstance(model, VisionTransformer):
        raise ValueError(
            f"model.name={name!r} is of the class {kind}, not a VisionTransformer: convolutions, windows and the like need "
            f"every patch in its place, so hidden patches cannot be dropped; choose a ViT such as vit_small_patch16_224"
        )
    if type(model)._pos_embed is not VisionTransformer._pos_embed:
        raise ValueError(
            f"model.name={name!r} is of the class {kind}, which places its tokens in its own way: choose a plain ViT"
        )
    if not isinstance(model.patch_embed, PatchEmbed):
        raise ValueError(
            f"model.name={name!r} embeds patches with a {type(model.patch_embed).__name__}, whose receptive field looks into "
            f"hidden patches: choose a ViT whose patch embedding is one convolution, such as vit_small_patch16_224"
        )
