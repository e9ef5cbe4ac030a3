"""Parts as a user would write them in a file of their own: a mask, a decoder, an objective and a backbone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mae.masking.plan import MaskPlan, gather_patches
from mae.masking.samplers import MaskSampler
from mae.models.backbones.backbone import PatchBackbone
from mae.models.decoders import Decoder
from mae.models.layers.patches import patchify
from mae.objectives.objective import Objective, PixelScale


class ColumnMasking(MaskSampler):
    """Hide whole columns.

    Args:
        columns: How many stay visible.
    """

    def __init__(self, columns: int = 1) -> None:
        self.columns = columns

    def check(self, grid: tuple[int, int]) -> int:
        return grid[0] * self.columns

    def plan(self, noise: Tensor, grid: tuple[int, int]) -> MaskPlan:
        columns = noise.unflatten(1, grid)[:, :1].expand(-1, grid[0], -1).flatten(1)  # type: ignore[no-untyped-call]
        return MaskPlan.from_noise(columns, grid, 1 - self.columns / grid[1])


class MeanDecoder(Decoder):
    """Predict every hidden patch from the mean token and a table of positions."""

    def __init__(
        self, encoder_width: int, patch_values: int, grid: tuple[int, int], prefix: int, *, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.scale = scale
        self.places = nn.Parameter(torch.zeros(1, grid[0] * grid[1], encoder_width))
        self.predict = nn.Linear(encoder_width, patch_values)

    def forward(self, latent: Tensor, plan: MaskPlan) -> Tensor:
        places = gather_patches(self.places.expand(len(latent), -1, -1), plan.masked)
        return self.predict(self.scale * latent.mean(dim=1, keepdim=True) + places)  # type: ignore[no-any-return]


class PatchMeans(Objective):
    """Predict the mean of each channel."""

    def __init__(self, power: int = 2) -> None:
        self.power = power

    def width(self, patch_size: int, channels: int) -> int:
        self.channels = channels
        return channels

    def target(self, hidden: Tensor, scale: PixelScale) -> Tensor:
        return hidden.unflatten(-1, (-1, self.channels)).mean(dim=-2)  # type: ignore[no-untyped-call,no-any-return]

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        return (prediction.float() - target).abs().pow(self.power).mean()

    def as_patches(self, prediction: Tensor, hidden: Tensor, scale: PixelScale) -> Tensor:
        return prediction.repeat(1, 1, hidden.shape[-1] // self.channels)


class PatchMLP(PatchBackbone):
    """Patches that never see each other."""

    def __init__(self, *, image_size: tuple[int, int], in_channels: int, patch_size: int = 4, width: int = 16) -> None:
        super().__init__()
        self.image_size, self.in_channels, self.patch_size, self.width = image_size, in_channels, patch_size, width
        self.grid = (image_size[0] // patch_size, image_size[1] // patch_size)
        self.embed = nn.Linear(patch_size**2 * in_channels, width)

    def forward(self, images: Tensor, plan: MaskPlan | None = None) -> Tensor:
        patches = patchify(images, self.patch_size)
        return self.embed(patches if plan is None else gather_patches(patches, plan.keep)).relu()  # type: ignore[no-any-return]
