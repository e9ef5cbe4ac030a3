"""What a second stage stands on: a network that turns images into tokens, whatever it is made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


class Backbone(nn.Module, ABC):
    """Images (B, C, H, W) to tokens (B, prefix + N, D): the patches of a ViT, the pixels of a feature map, or visual tokens.

    Attributes:
        image_size: (H, W) in pixels.
        in_channels: C.
        width: D.
        depth: Layers that layer-wise decay tells apart, the embedding not counted; 0 where it knows none.
        config: Plain values that ``create_backbone`` builds it from again.
        num_prefix_tokens: Class and register tokens in front of the others.
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

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Return the tokens (B, prefix + N, D)."""

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

    @property
    def has_class_token(self) -> bool:
        """Whether the first token is a class token."""
        return False

    @property
    def heads(self) -> int | None:
        """Attention heads of a layer; None where it has none, or does not say."""
        return None

    def set_grad_checkpointing(self) -> None:
        """Compute layers again on the way back, which takes less memory.

        Raises:
            ValueError: It cannot.
        """
        raise ValueError(f"trainer.grad_checkpointing=true is for ViTs, not for {self.config['name']}: leave it out")

    def describe(self) -> str:
        """Return what a person reads in the summary of a run."""
        height, width = self.image_size
        return f"{self.config['name']}: {height}x{width} px, {self.in_channels} channels, tokens of width {self.width}"

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
