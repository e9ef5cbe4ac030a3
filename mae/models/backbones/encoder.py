"""The encoder: any plain ViT of timm, run on the visible patches alone."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from timm.layers import HybridEmbed
from torch import Tensor, nn

from mae.masking.plan import MaskPlan, gather_patches
from mae.models.backbones.backbone import PatchBackbone
from mae.models.backbones.build_vit import build_vit, fix_sincos, give_class_tokens, own_norm_eps, start_weights
from mae.models.backbones.describe_vit import encoder_arguments, same_tokens, vit_name, without_classifier
from mae.models.backbones.freezing import freeze_vit, vit_layer
from mae.models.backbones.hybrid import hide_pixels, hybrid_patch_size
from mae.models.backbones.places import ViT, embed_patches, layers, placed, places_alone, resample_biases
from mae.models.backbones.timm_models import check_vit, meta_model, own_patch_size
from mae.models.layers.initialize import INITS
from mae.models.layers.patches import as_pair, patch_grid, patchify
from mae.models.layers.positions import resample_positions

log = logging.getLogger(__name__)

POSITIONS = ("sincos", "learned")


class Encoder(PatchBackbone):
    """A ViT of timm that embeds and processes only the patches that a plan keeps.

    Args:
        name: Any timm ViT, such as ``vit_base_patch16_224``; its class and register tokens are kept.
        image_size: Side or (H, W) in pixels; the patch must divide it.
        in_channels: C.
        patch_size: P; None takes the timm model's own.
        positions: ``sincos`` (fixed, as in the paper) or ``learned``, of the table that is added to patches; a model of rotary
            positions, or of biases between places, alone has none.
        width: D; None takes the timm model's own, as for depth, heads and mlp_ratio.
        depth: Number of blocks.
        heads: Attention heads per block.
        mlp_ratio: Hidden width of the MLP over D.
        norm_eps: Epsilon of every LayerNorm; None takes 1e-6, timm's and the paper's, and leaves a model that has other norms, such
            as RMSNorm, its own.
        drop_path: Stochastic depth at the last block, rising linearly from 0.
        init: How the weights start: ``mae``, ``timm`` or ``torch``, see ``INITS``.
        position_std: Deviation of learned positions at the start; None takes the init's, as for token_std.
        token_std: Deviation of the class token at the start; 0 starts it at zero.
        class_tokens: How many class tokens there are, where the model has one; Pixio's are 8 (arXiv 2512.15715).
        attention_bias: Whether attention has biases, at its output too.
        attention_output_dropout: Dropout after the output projection of attention; None takes ``options.proj_drop_rate``.
        cnn: A CNN whose feature map is embedded in place of patches, ``name`` and ``level``; see ``cnn_embedding``.
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
        norm_eps: float | None = None,
        drop_path: float = 0.0,
        init: str = "mae",
        position_std: float | None = None,
        token_std: float | None = None,
        class_tokens: int = 1,
        attention_bias: bool = True,
        attention_output_dropout: float | None = None,
        cnn: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        for key, value, known in (("positions", positions, POSITIONS), ("init", init, INITS)):
            if value not in known:
                raise ValueError(f"model.{key}={value!r} is unknown: choose one of {', '.join(known)}")
        self.image_size = as_pair(image_size)
        plain = check_vit(name, meta_model(name))
        norm_eps = own_norm_eps(plain, norm_eps)
        self.vit: ViT = build_vit(
            name,
            plain,
            self.image_size,
            in_channels,
            {
                "patch_size": patch_size,
                "embed_dim": width,
                "depth": depth,
                "num_heads": heads,
                "mlp_ratio": mlp_ratio,
            },
            norm_eps=norm_eps,
            drop_path=drop_path,
            init=init,
            attention_bias=attention_bias,
            cnn=cnn,
            options=options or {},
        )
        give_class_tokens(name, self.vit, class_tokens)
        self._hold(name, self.vit)
        if patch_size not in (None, self.patch_size):
            raise ValueError(
                f"model.patch_size={patch_size} does not fit: the CNN makes tokens of {self.patch_size} pixels, so leave it out"
            )
        self.config: dict[str, Any] = {
            "name": name,
            "image_size": list(self.image_size),
            "in_channels": in_channels,
            "patch_size": self.patch_size,
            "positions": positions,
            "width": self.width,
            "depth": self.depth,
            "heads": heads,
            "mlp_ratio": mlp_ratio,
            "norm_eps": norm_eps,
            "init": init,
            "position_std": position_std,
            "token_std": token_std,
            "class_tokens": class_tokens,
            "attention_bias": attention_bias,
            "attention_output_dropout": attention_output_dropout,
            "cnn": None if cnn is None else dict(cnn),
            "options": dict(options or {}),
        }
        for block in self.vit.blocks:
            if not attention_bias:  # timm's own option would take the MLP's biases too
                block.attn.proj.register_parameter("bias", None)
            if attention_output_dropout is not None:
                block.attn.proj_drop.p = attention_output_dropout
        start_weights(self.vit, init, position_std, token_std)
        if positions == "sincos" and not places_alone(self.vit):
            fix_sincos(name, self.vit, self.grid, self.position_prefix)

    @classmethod
    def from_vit(cls, vit: nn.Module) -> Encoder:
        """Return an encoder around a ViT object of one's own: of a class of timm's that can be pretrained, or derived from it.

        The object is held as it is, changed blocks and their hooks too, and loses its classifier; a norm behind its pooling becomes
        its last one. Its own ``forward`` is not called. Where timm's name and options build the same, which is tried, it trains,
        saves and loads as one by name does; where not, it is for a loop of one's own: ``mae.save`` and ``PretrainingModule`` refuse
        what no file can describe, and ``encoder.vit.state_dict()`` holds what it learned.

        Raises:
            ValueError: Its patches cannot be hidden, or it takes images of any size.
        """
        found = without_classifier(check_vit(type(vit).__name__, vit))
        encoder = cls.__new__(cls)
        super(Encoder, encoder).__init__()
        encoder.vit = found
        encoder.image_size = as_pair(found.patch_embed.img_size)
        encoder._hold(vit_name(found), found)
        encoder.config = {}
        try:
            with torch.random.fork_rng(devices=[]):
                twin = cls(**encoder_arguments(found))
            twin.vit.load_state_dict(found.state_dict())
            if same_tokens(found, twin.vit, encoder.image_size, encoder.in_channels):
                encoder.config = twin.config
        except (ValueError, RuntimeError, AttributeError):  # of what an object of one's own has not, or has beside
            log.info("no name and options of timm's build this %s again", type(vit).__name__)
        return encoder

    def _hold(self, name: str, vit: ViT) -> None:
        """Take sizes from a ViT."""
        self.hybrid = isinstance(vit.patch_embed, HybridEmbed)
        self.patch_size = hybrid_patch_size(name, vit, self.image_size) if self.hybrid else own_patch_size(name, vit)
        self.grid = vit.patch_embed.grid_size
        self.in_channels = int(vit.in_chans)
        self.width = int(vit.embed_dim)
        self.depth = len(vit.blocks)
        self.num_prefix_tokens = int(vit.num_prefix_tokens)

    def forward(self, images: Tensor, plan: MaskPlan | None = None) -> Tensor:
        """Encode images (B, C, H, W) to tokens (B, prefix + V, D), normalised.

        With a plan only its visible patches enter, in the plan's order. Without one every patch is seen, and the result
        equals timm's ``forward_features``: inference never masks.
        """
        return self.normalize(self.trunk(images, plan))

    def trunk(self, images: Tensor, plan: MaskPlan | None = None) -> Tensor:
        """Do what ``forward`` does, all but the last norm."""
        if plan is None:
            return self._run(placed(self.vit, self.embed(images)))
        self.check_images(images)
        return self._run(self._embed_visible(images, plan), plan)

    @property
    def levels_at_most(self) -> int:
        """How many blocks ``levels`` can give the tokens of: all."""
        return self.depth

    def levels(self, images: Tensor, plan: MaskPlan, count: int) -> list[Tensor]:
        """Return the tokens (B, prefix + V, D) behind each of the last ``count`` blocks; those of the last are normalised."""
        self.check_images(images)
        tokens, found = self.vit.norm_pre(self._embed_visible(images, plan)), []
        for number, layer in enumerate(layers(self.vit, self.grid, plan)):
            tokens = layer(tokens)
            if number >= self.depth - count:
                found.append(tokens)
        return [*found[:-1], self.normalize(found[-1])]

    def embed(self, images: Tensor) -> Tensor:
        """Embed every patch, without positions: (B, C, H, W) to (B, L, D)."""
        self.check_images(images)
        return self.vit.patch_embed(images)  # type: ignore[no-any-return]

    def encode(self, embeddings: Tensor) -> Tensor:
        """Finish what ``embed`` began: (B, L, D) to tokens (B, prefix + L, D), normalised."""
        return self.normalize(self._run(placed(self.vit, embeddings)))

    def _run(self, tokens: Tensor, plan: MaskPlan | None = None) -> Tensor:
        tokens = self.vit.norm_pre(tokens)
        for layer in layers(self.vit, self.grid, plan):
            tokens = layer(tokens)
        return tokens

    def _embed_visible(self, images: Tensor, plan: MaskPlan) -> Tensor:
        """Embed the visible patches and add their positions: (B, C, H, W) to (B, prefix + V, D)."""
        if plan.grid != self.grid:
            raise ValueError(f"a plan for a {plan.grid} grid does not fit the encoder's {self.grid}")
        vit, B = self.vit, images.shape[0]
        if self.hybrid:
            tokens = gather_patches(vit.patch_embed(hide_pixels(images, plan, self.patch_size)), plan.keep)
        else:
            tokens = embed_patches(vit, gather_patches(patchify(images, self.patch_size), plan.keep))
        prefix = [token.expand(B, -1, -1) for token in (vit.cls_token, vit.reg_token) if token is not None]
        if vit.pos_embed is not None:
            rows = self.position_prefix
            tokens = tokens + gather_patches(vit.pos_embed[:, rows:].expand(B, -1, -1), plan.keep)
            if rows:
                prefix = [torch.cat(prefix, dim=1) + vit.pos_embed[:, :rows]]
        return vit.pos_drop(torch.cat([*prefix, tokens], dim=1))  # type: ignore[no-any-return]

    def normalize(self, tokens: Tensor) -> Tensor:
        """Return tokens, pooled or not, behind the last norm."""
        return self.vit.norm(tokens)  # type: ignore[no-any-return]

    def restart_norm(self) -> None:
        """Let the last norm start afresh, where there is one."""
        if not isinstance(self.vit.norm, nn.Identity):
            self.vit.norm.reset_parameters()

    def layer_of(self, name: str) -> int:
        """Return the layer of a parameter: 0 embeddings, 1 to depth the blocks, depth + 1 the norm that follows them."""
        return vit_layer(name, self.depth)

    def freeze_all_but(self, blocks: float | None) -> list[nn.Module]:
        """Let the last ``blocks`` blocks and the final norm learn, see ``freeze_vit``; all or nothing as any backbone."""
        return freeze_vit(self.vit, self.vit.norm, blocks, self.name) if blocks else super().freeze_all_but(blocks)

    def fit_weights(self, state: Mapping[str, Tensor], trained_at: tuple[int, int]) -> dict[str, Tensor]:
        """Return weights whose position table and biases between places, where there are some, are resampled to this grid."""
        stored = patch_grid(trained_at, self.patch_size)
        fitted = {**state, **resample_biases(state, self.state_dict(), stored, self.grid)}
        table = state.get("vit.pos_embed")
        if table is not None:
            fitted["vit.pos_embed"] = resample_positions(table, stored, self.grid, self.position_prefix)
        return fitted

    @property
    def heads(self) -> int | None:
        """Attention heads of a block, where blocks say it."""
        return getattr(getattr(self.vit.blocks[0], "attn", None), "num_heads", None)

    def set_grad_checkpointing(self) -> None:
        """Compute blocks again on the way back, which takes less memory."""
        # Not timm's method, which would run a hybrid's CNN twice too, and with it the statistics of its BatchNorm.
        self.vit.grad_checkpointing = True

    @property
    def class_tokens(self) -> int:
        """How many of the first tokens are class tokens."""
        return 0 if self.vit.cls_token is None else int(self.vit.cls_token.shape[1])

    def describe(self) -> str:
        """Return what a person reads in the summary of a run."""
        height, width = self.image_size
        return (
            f"{self.name}: {self.depth} blocks of width {self.width}, {height}x{width} px in "
            f"{self.grid[0]}x{self.grid[1]} patches of {self.patch_size}, {self.in_channels} channels"
            f"{', rotary positions' if getattr(self.vit, 'rope', None) is not None else ''}"
        )

    @property
    def position_prefix(self) -> int:
        """Rows of the position table that belong to class and register tokens."""
        return 0 if self.vit.no_embed_class else self.num_prefix_tokens
