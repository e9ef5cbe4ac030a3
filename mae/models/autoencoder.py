"""The masked autoencoder (He et al. 2021, arXiv 2111.06377)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mae.masking.plan import MaskPlan, gather_patches
from mae.models.backbones.encoder import Encoder
from mae.models.decoders import DECODERS, SelfAttentionDecoder
from mae.models.layers.patches import patchify
from mae.models.masked_model import MaskedModel, MaskedOutput
from mae.objectives.masked_mse import masked_mse
from mae.objectives.pixels import denormalize_patches, normalize_patches


class MaskedAutoencoder(MaskedModel):
    """Encode the visible patches, predict the hidden ones, compare."""

    def __init__(self, encoder: Encoder, decoder: SelfAttentionDecoder, config: dict[str, Any]) -> None:
        super().__init__(encoder, config)
        self.decoder = decoder
        self.normalize_pixels: bool = config["normalize_pixels"]

    def forward(self, images: Tensor, plan: MaskPlan) -> MaskedOutput:
        """Reconstruct what the plan hides of standardised float images (B, C, H, W)."""
        latent = self.encoder(images, plan)
        prediction = self.decoder(latent, plan)
        target = self.target(images, plan)
        return MaskedOutput(masked_mse(prediction, target), prediction, target, plan)

    def target(self, images: Tensor, plan: MaskPlan) -> Tensor:
        """Return the hidden patches (B, M, P*P*C) as they are to be predicted, in float32 also under autocast."""
        with torch.autocast(images.device.type, enabled=False):
            images = images if images.dtype == torch.float64 else images.float()
            hidden = gather_patches(patchify(images, self.patch_size), plan.masked)
            return normalize_patches(hidden) if self.normalize_pixels else hidden

    def as_pixels(self, prediction: Tensor, hidden: Tensor) -> Tensor:
        """Return a prediction as standardised patches (B, M, P*P*C); normalised ones by the true mean and deviation."""
        return denormalize_patches(prediction, hidden) if self.normalize_pixels else prediction


def create_autoencoder(
    name: str = "vit_base_patch16_224",
    image_size: int | tuple[int, int] = 224,
    in_channels: int = 3,
    *,
    decoder: str = "self_attention",
    decoder_width: int = 512,
    decoder_depth: int = 8,
    decoder_heads: int = 16,
    decoder_options: Mapping[str, Any] | None = None,
    normalize_pixels: bool = True,
    **encoder_arguments: Any,
) -> MaskedAutoencoder:
    """Build a masked autoencoder around any timm ViT.

    Args:
        name: The timm model.
        image_size: Side or (H, W) in pixels.
        in_channels: C.
        decoder: ``self_attention``.
        decoder_width: The paper's is 512, whatever the encoder.
        decoder_depth: The paper's is 8.
        decoder_heads: The paper's is 16.
        decoder_options: Further arguments of the decoder.
        normalize_pixels: Predict pixels normalised patch by patch (better features) or plain ones.
        **encoder_arguments: Further arguments of :class:`~mae.models.backbones.encoder.Encoder`, such as ``patch_size``.

    Raises:
        ValueError: The model is unknown or no ViT, or sizes do not fit each other.
    """
    if decoder not in DECODERS:
        raise ValueError(f"decoder.name={decoder!r} is unknown: choose one of {', '.join(sorted(DECODERS))}")
    encoder = Encoder(name, image_size, in_channels, **encoder_arguments)
    options = {"width": decoder_width, "depth": decoder_depth, "heads": decoder_heads, **(decoder_options or {})}
    return MaskedAutoencoder(
        encoder,
        DECODERS[decoder](
            encoder.width,
            encoder.patch_size**2 * in_channels,
            encoder.grid,
            encoder.num_prefix_tokens,
            **options,
        ),
        {
            "encoder": encoder.config,
            "decoder": {"name": decoder, **options},
            "normalize_pixels": normalize_pixels,
        },
    )
