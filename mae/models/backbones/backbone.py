"""What a second stage stands on: a network that turns images into tokens, whatever it is made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from mae.masking.plan import MaskPlan
from mae.models.layers.whitening import Whitening


class Backbone(nn.Module, ABC):
    """Images (B, C, H, W) to tokens (B, prefix + N, D): the patches of a ViT, the pixels of a feature map, or visual tokens.

    Attributes:
        image_size: (H, W) in pixels.
        in_channels: C.
        width: D.
        depth: Layers that layer-wise decay tells apart, the embedding not counted; 0 where it knows none.
        config: Plain values that ``create_backbone`` builds it from again; set by it where the class does not.
        num_prefix_tokens: Class and register tokens in front of the others.
        whitening: Of pooled features, fitted on training images at the end of pretraining; None where nothing is stored.
    """

    image_size: tuple[int, int]
    in_channels: int
    width: int
    depth: int = 0
    config: dict[str, Any]
    num_prefix_tokens: int = 0
    pixel_mean: tuple[float, ...] | None = None
    """Per-channel mean of the pixels in [0, 1] that it was trained on; None until it is known."""
    pixel_std: tuple[float, ...] | None = None

    def __init__(self) -> None:
        super().__init__()
        self.whitening: Whitening | None = None

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Return the tokens (B, prefix + N, D)."""

    def features(self, images: Tensor, *, whitened: bool = True) -> Tensor:
        """Return features (B, D) of images (B, C, H, W), standardised as for ``forward``: the mean over the tokens of patches.

        Nearly all variance of the mean lies in a few directions, and drowns the rest in every distance. Whitened features compare
        by cosine similarity and Euclidean distance as they are, which those that are not whitened hardly do.

        Raises:
            ValueError: Whitened ones are asked for, and no whitening is stored.
        """
        if whitened and self.whitening is None:
            raise ValueError(
                "this encoder stores no whitening, as files of others, old runs and .ckpt do not: encoder.fit_whitening(features) "
                "fits one to encoder.features(images, whitened=False) of some thousand images, or take those as they are"
            )
        pooled: Tensor = self(images)[:, self.num_prefix_tokens :].mean(dim=1)
        return self.whitening(pooled) if whitened and self.whitening else pooled

    def fit_whitening(self, features: Tensor) -> None:
        """Fit the whitening to features (N, D), not whitened, of training images; some thousand are enough, without labels.

        Raises:
            ValueError: They are of another width, fewer than two, or not finite.
        """
        if features.shape[1:] != (self.width,):
            raise ValueError(
                f"features of shape {tuple(features.shape)} do not fit an encoder of width {self.width}: give "
                f"encoder.features(images, whitened=False)"
            )
        self.whitening = Whitening.fit(features).to(next(self.parameters()).device)

    def trunk(self, images: Tensor) -> Tensor:
        """Return the tokens before the last norm, so that ``normalize(trunk(images))`` is what ``forward`` gives."""
        return self(images)  # type: ignore[no-any-return]

    def normalize(self, tokens: Tensor) -> Tensor:
        """Return tokens, pooled or not, behind the last norm; as they are where none ends the network."""
        return tokens

    def restart_norm(self) -> None:
        """Let the last norm start afresh, where there is one."""

    def layer_of(self, name: str) -> int:
        """Return the layer of a parameter: 0 embeddings, 1 to depth the layers, depth + 1 what follows them."""
        return self.depth + 1

    def freeze_all_but(self, blocks: float | None) -> list[nn.Module]:
        """Let the last ``blocks`` blocks and the final norm learn, and nothing before them.

        Args:
            blocks: 0 freezes everything, the final norm too; None frees everything, fixed positions too, as the MAE paper's
                fine-tuning does.

        Returns:
            The modules that are frozen, which belong in eval mode.

        Raises:
            ValueError: It has no such blocks.
        """
        if blocks:
            raise ValueError(
                f"protocol.blocks={blocks:g} tunes the last blocks of a ViT, and {self.name} has none: choose protocol=finetune or "
                f"protocol=linear_probe"
            )
        self.requires_grad_(blocks is None)
        return [] if blocks is None else [self]

    def fit_weights(self, state: Mapping[str, Tensor], trained_at: tuple[int, int]) -> dict[str, Tensor]:
        """Return weights, under their names here, of one that was trained on images of another (H, W), as they fit this one."""
        return dict(state)

    def instead_of_maps(self) -> str:
        """Return how a message goes on that says that it has no maps: why, and what has."""
        return ": choose a ViT, or a convolutional network"

    @property
    def name(self) -> str:
        """What a person calls it."""
        return str(self.config.get("name") or type(self).__name__)

    @property
    def class_tokens(self) -> int:
        """How many of the first tokens are class tokens."""
        return 0

    @property
    def heads(self) -> int | None:
        """Attention heads of a layer; None where it has none, or does not say."""
        return None

    def set_grad_checkpointing(self) -> None:
        """Compute layers again on the way back, which takes less memory.

        Raises:
            ValueError: It cannot.
        """
        raise ValueError(f"trainer.grad_checkpointing=true is for ViTs, not for {self.name}: leave it out")

    def describe(self) -> str:
        """Return what a person reads in the summary of a run."""
        height, width = self.image_size
        return f"{self.name}: {height}x{width} px, {self.in_channels} channels, tokens of width {self.width}"

    def set_pixel_statistics(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Keep the per-channel mean and deviation of the training pixels, in [0, 1].

        Raises:
            ValueError: They are not one number per channel.
        """
        if len(mean) != self.in_channels or len(std) != self.in_channels:
            raise ValueError(
                f"data.mean={mean} and data.std={std} must hold one number for each of {self.in_channels} channels"
            )
        self.pixel_mean, self.pixel_std = tuple(mean), tuple(std)

    def check_images(self, images: Tensor) -> None:
        """Raise a ValueError where images are not (B, in_channels, *image_size)."""
        if images.shape[1:] != (self.in_channels, *self.image_size):
            raise ValueError(
                f"images of shape {tuple(images.shape)} do not fit an encoder of "
                f"(B, {self.in_channels}, {self.image_size[0]}, {self.image_size[1]})"
            )


class DenseBackbone(Backbone):
    """A backbone whose tokens have places in the image."""

    @abstractmethod
    def maps(self, images: Tensor) -> list[Tensor]:
        """Return feature maps (B, C_i, H_i, W_i), the finest first, for dense prediction."""

    @property
    @abstractmethod
    def map_widths(self) -> tuple[int, ...]:
        """C_i of each of the ``maps``."""

    @property
    @abstractmethod
    def map_strides(self) -> tuple[int, ...]:
        """Pixels of the image to a step on each of the ``maps``."""


class PatchBackbone(DenseBackbone):
    """A backbone that leaves hidden patches out: what is pretrained.

    Attributes:
        grid: (Gh, Gw).
        patch_size: P, in pixels.
    """

    grid: tuple[int, int]
    patch_size: int

    @property
    def levels_at_most(self) -> int:
        """How many of the last blocks ``levels`` gives the tokens of; 0 where it has none."""
        return 0

    def levels(self, images: Tensor, plan: MaskPlan, count: int) -> list[Tensor]:
        """Return the tokens (B, prefix + V, D) behind each of the last ``count`` blocks, for a decoder that fuses them.

        Raises:
            ValueError: There are fewer, as here.
        """
        raise ValueError(f"{self.name} gives the tokens of its last block alone: choose decoder.fuse=0")

    @abstractmethod
    def forward(self, images: Tensor, plan: MaskPlan | None = None) -> Tensor:
        """Return tokens (B, prefix + V, D): of the visible patches alone, in the order of ``plan.keep``; of all without a plan."""

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
