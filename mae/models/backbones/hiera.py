"""Hiera (Ryali et al. 2023, arXiv 2306.00989): a hierarchical ViT whose hidden mask units are dropped before its first stage."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import timm
from timm.models.hiera import Hiera
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mae.masking.plan import MaskPlan
from mae.models.backbones.backbone import PatchBackbone
from mae.models.backbones.freezing import freeze_vit, vit_layer
from mae.models.backbones.hybrid import hide_pixels
from mae.models.backbones.timm_models import known_model, meta_model, refuse_loading
from mae.models.layers.initialize import INITS, initialize_mae
from mae.models.layers.patches import as_pair, patch_grid
from mae.models.layers.positions import resample_positions


class HieraEncoder(PatchBackbone):
    """timm's Hiera, of which mask units are hidden: squares of tokens that its pooling makes one token of.

    A patch, here and to everything that takes an encoder, is a mask unit: P pixels of a side (32 in timm's models), and one token
    at the end. Tokens are embedded by a convolution that looks past them, so hidden pixels are set to 0 before it.

    Args:
        name: Of timm, such as ``hiera_tiny_224``.
        image_size: Side or (H, W) in pixels; the mask unit must divide it.
        in_channels: C.
        patch_size: P; None takes the model's own. Its tokens are as many a unit as before, so that they cover fewer pixels.
        width: Of the first stage, which doubles at each of the others; None takes the model's own, as for heads and mlp_ratio.
        heads: Of the first stage.
        mlp_ratio: Hidden width of the MLP over the width.
        norm_eps: Epsilon of every LayerNorm; None takes 1e-6, timm's and the paper's.
        drop_path: Stochastic depth at the last block, rising linearly from 0.
        init: How the weights start, see ``INITS``; ``torch`` is not for it.
        options: Further arguments of timm's, such as ``stages`` and ``mask_unit_size``.

    Raises:
        ValueError: The model is unknown or cannot be built, or its units do not tile the image or are pooled to several tokens.
    """

    def __init__(
        self,
        name: str,
        image_size: int | tuple[int, int] = 224,
        in_channels: int = 3,
        *,
        patch_size: int | None = None,
        width: int | None = None,
        heads: int | None = None,
        mlp_ratio: float | None = None,
        norm_eps: float | None = None,
        drop_path: float = 0.0,
        init: str = "mae",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if init not in INITS or init == "torch":
            raise ValueError(f"model.init={init!r} is not for {name}: choose mae or timm")
        self.image_size = as_pair(image_size)
        given = {key: tuple(value) if isinstance(value, list) else value for key, value in (options or {}).items()}
        refuse_loading(given)
        side, stride = mask_unit(name, given, patch_size)
        self.patch_size = side * stride
        self.grid = patch_grid(self.image_size, self.patch_size)
        if width and heads and width % heads:
            raise ValueError(f"model.width={width} is not divisible by model.heads={heads}")
        chosen = {"embed_dim": width, "num_heads": heads, "mlp_ratio": mlp_ratio}
        fixed: dict[str, Any] = {
            "img_size": self.image_size,
            "in_chans": in_channels,
            "num_classes": 0,
            "drop_path_rate": drop_path,
            "norm_layer": partial(nn.LayerNorm, eps=1e-6 if norm_eps is None else norm_eps),
            **{key: value for key, value in chosen.items() if value is not None},
        }
        if patch_size is not None:
            # A kernel of 2 s - 1 at a stride of s: timm's own at its own stride of 4.
            fixed |= {
                "patch_stride": (stride, stride),
                "patch_kernel": (2 * stride - 1,) * 2,
                "patch_padding": (stride - 1,) * 2,
            }
        clash = sorted(fixed.keys() & given.keys())
        if clash:
            raise ValueError(f"model.options.{clash[0]} is set by the encoder itself: leave it out of the options")
        try:
            self.vit: Hiera = timm.create_model(known_model(name), **fixed, **given)
        except (TypeError, AssertionError, IndexError, RuntimeError) as error:
            raise ValueError(f"timm cannot build {name} with these options: {error}") from error
        self.in_channels = in_channels
        self.width = self.vit.num_features
        self.depth = len(self.vit.blocks)
        self.config = {
            "name": name,
            "image_size": list(self.image_size),
            "in_channels": in_channels,
            "patch_size": patch_size,
            "width": width,
            "heads": heads,
            "mlp_ratio": mlp_ratio,
            "norm_eps": norm_eps,
            "init": init,
            "options": {key: list(value) if isinstance(value, tuple) else value for key, value in given.items()},
        }
        if init == "mae":
            initialize_mae(self.vit)

    def forward(self, images: Tensor, plan: MaskPlan | None = None) -> Tensor:
        """Encode images (B, C, H, W) to a token for each mask unit, (B, V, D), normalised.

        timm's ``forward_features`` ends before the norm, which it keeps in its head: that is what ``trunk`` gives.
        """
        return self.normalize(self.trunk(images, plan))

    def trunk(self, images: Tensor, plan: MaskPlan | None = None) -> Tensor:
        """Do what ``forward`` does, all but the norm; without a plan it is timm's ``forward_features``."""
        tokens = self._embed(images, plan)
        for block in self.vit.blocks:
            tokens = self._run(block, tokens)
        return tokens

    @property
    def levels_at_most(self) -> int:
        """How many of the last blocks have the width and the units of the last: those of the last stage."""
        ends = self.vit.stage_ends
        return int(ends[-1] - (ends[-2] if len(ends) > 1 else -1))

    def levels(self, images: Tensor, plan: MaskPlan, count: int) -> list[Tensor]:
        """Return the tokens (B, V, D) behind each of the last ``count`` blocks; those of the last are normalised."""
        tokens, found = self._embed(images, plan), []
        for number, block in enumerate(self.vit.blocks):
            tokens = self._run(block, tokens)
            if number >= self.depth - count:
                found.append(tokens)
        return [*found[:-1], self.normalize(found[-1])]

    def maps(self, images: Tensor) -> list[Tensor]:
        """Return the tokens of every stage in their places, the finest first: (B, C_i, H_i, W_i); those of the last normalised."""
        self.check_images(images)
        *finer, last = self.vit.forward_intermediates(images, intermediates_only=True)
        return [*finer, self.normalize(last.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)]

    @property
    def map_widths(self) -> tuple[int, ...]:
        """C_i of each of the ``maps``."""
        return tuple(self.vit.blocks[end].attn.dim_out for end in self.vit.stage_ends)

    @property
    def map_strides(self) -> tuple[int, ...]:
        """Pixels to a step on each of the ``maps``."""
        return tuple(
            self.vit.patch_stride[0] * self.vit.q_stride[0] ** stage for stage in range(len(self.vit.stage_ends))
        )

    def normalize(self, tokens: Tensor) -> Tensor:
        """Return tokens, pooled or not, behind the norm."""
        return self.vit.head.norm(tokens)  # type: ignore[no-any-return]

    def restart_norm(self) -> None:
        """Let the norm start afresh."""
        self.vit.head.norm.reset_parameters()

    def layer_of(self, name: str) -> int:
        """Return the layer of a parameter: 0 embeddings, 1 to depth the blocks, depth + 1 the norm that follows them."""
        return vit_layer(name, self.depth)

    def freeze_all_but(self, blocks: float | None) -> list[nn.Module]:
        """Let the last ``blocks`` blocks and the norm learn, see ``freeze_vit``; all or nothing as any backbone."""
        if not blocks:
            return super().freeze_all_but(blocks)
        return freeze_vit(self.vit, self.vit.head.norm, blocks, self.name)

    def fit_weights(self, state: Mapping[str, Tensor], trained_at: tuple[int, int]) -> dict[str, Tensor]:
        """Return weights whose position table is resampled to the tokens of this image size."""
        if self.vit.pos_embed_win is not None:
            return dict(state)  # a table of windows, which is laid over any image
        stride = self.vit.patch_stride[0]
        old, new = patch_grid(trained_at, stride), patch_grid(self.image_size, stride)
        return {**state, "vit.pos_embed": resample_positions(state["vit.pos_embed"], old, new, 0)}

    @property
    def heads(self) -> int:
        """Attention heads of the first stage."""
        return int(self.vit.blocks[0].attn.heads)

    def set_grad_checkpointing(self) -> None:
        """Compute blocks again on the way back, which takes less memory."""
        self.vit.grad_checkpointing = True

    def describe(self) -> str:
        """Return what a person reads in the summary of a run."""
        height, width = self.image_size
        return (
            f"{self.name}: {self.depth} blocks of width {self.vit.blocks[0].dim} to {self.width}, {height}x{width} px in "
            f"{self.grid[0]}x{self.grid[1]} mask units of {self.patch_size}, {self.in_channels} channels"
        )

    def _run(self, block: nn.Module, tokens: Tensor) -> Tensor:
        return checkpoint(block, tokens, use_reentrant=False) if self.vit.grad_checkpointing else block(tokens)  # type: ignore[no-any-return]

    def _embed(self, images: Tensor, plan: MaskPlan | None) -> Tensor:
        """Embed tokens, a mask unit's at a stride of the units: (B, C, H, W) to (B, tokens a unit * V, D_1)."""
        self.check_images(images)
        vit = self.vit
        if plan is None:
            return vit.unroll(vit._pos_embed(vit.patch_embed(images)))  # type: ignore[no-any-return]
        if plan.grid != self.grid:
            raise ValueError(f"a plan for a {plan.grid} grid does not fit the encoder's {self.grid}")
        tokens = vit._pos_embed(vit.patch_embed(hide_pixels(images, plan, self.patch_size)))
        B, V = plan.keep.shape
        units = vit.unroll(tokens).unflatten(1, (vit.mu_size, -1))  # (B, tokens of a unit, units, D_1)
        index = plan.keep[:, None, :, None].expand(-1, vit.mu_size, -1, units.shape[-1])
        seen: Tensor = units.gather(2, index)
        return seen.reshape(B, vit.mu_size * V, -1)


def mask_unit(name: str, options: Mapping[str, Any], patch_size: int | None) -> tuple[int, int]:
    """Return the side of a mask unit in tokens, and of a token in pixels.

    Args:
        name: Of timm.
        options: Of timm's, which may say what a unit is.
        patch_size: The side of a unit in pixels; None leaves tokens as large as they are.

    Raises:
        ValueError: Not one token is left of a unit at the end, or its tokens do not tile the patch.
    """
    own = meta_model(name)
    shape = {
        key: options.get(key, getattr(own, key)) for key in ("mask_unit_size", "q_pool", "q_stride", "patch_stride")
    }
    for key in ("mask_unit_size", "q_stride", "patch_stride"):
        pair = shape[key]
        if not (
            isinstance(pair, tuple)
            and len(pair) == 2
            and pair[0] == pair[1]
            and isinstance(pair[0], int)
            and pair[0] > 0
        ):
            raise ValueError(f"model.options.{key}={options.get(key)} is not two equal whole numbers, such as [2,2]")
    if not isinstance(options.get("stages", ()), tuple):
        raise ValueError(
            f"model.options.stages={options['stages']} is not a list of how many blocks each stage has, such as [1,2]"
        )
    stages = len(options.get("stages", own.stage_ends))
    side, pooled = shape["mask_unit_size"][0], shape["q_stride"][0] ** (stages - 1)
    if shape["q_pool"] != stages - 1 or tuple(shape["mask_unit_size"]) != (pooled, pooled):
        raise ValueError(
            f"model.options of {name} do not leave one token of a mask unit: with {stages} stages choose q_pool={stages - 1} and "
            f"mask_unit_size=[{pooled},{pooled}]"
        )
    if patch_size is not None and (patch_size % side or patch_size < side):
        raise ValueError(
            f"model.patch_size={patch_size} is not divisible into the {side}x{side} tokens of a mask unit of {name}: choose a "
            f"multiple of {side}"
        )
    return side, shape["patch_stride"][0] if patch_size is None else patch_size // side
