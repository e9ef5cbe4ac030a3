"""The masked autoencoder (He et al. 2021, arXiv 2111.06377)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mae.masking.plan import MaskPlan
from mae.models.backbones.backbone import PatchBackbone
from mae.models.backbones.create_backbone import create_backbone
from mae.models.decoders import DECODERS, Decoder
from mae.models.masked_model import MaskedModel
from mae.objectives.objective import OBJECTIVES, Objective


class MaskedAutoencoder(MaskedModel):
    """Encode the visible patches, predict the hidden ones, compare.

    Args:
        encoder: Sees the visible patches alone.
        decoder: Predicts as many values a patch as the objective asks for.
        objective: What is predicted, and how it is scored.

    Raises:
        ValueError: The decoder takes the tokens of more blocks than the encoder gives.
    """

    def __init__(self, encoder: PatchBackbone, decoder: Decoder, objective: Objective) -> None:
        super().__init__(encoder, objective)
        if decoder.levels > encoder.levels_at_most:
            most = encoder.levels_at_most
            remedy = f"from 0 to {most}" if most else "0, since this model gives those of the last alone"
            raise ValueError(
                f"decoder.fuse={decoder.levels} takes the tokens of more blocks than the {most} of {encoder.name}: choose {remedy}"
            )
        self.decoder = decoder

    @property
    def normalize_pixels(self) -> bool:
        """Whether patches are predicted by their own mean and deviation."""
        return self.objective.normalize

    @property
    def config(self) -> dict[str, Any]:
        """Plain values that build it again; MAE's own objective is stored as it always was."""
        own = self.objective.config.get("name") == "pixels"
        objective = {"normalize_pixels": self.normalize_pixels} if own else {"objective": self.objective.config}
        return {"encoder": self.encoder.config, "decoder": self.decoder.config, **objective}

    def predict_hidden(self, images: Tensor, plan: MaskPlan) -> Tensor:
        """Return what the decoder says of the hidden patches, (B, M, P*P*C), or in training of the share that it predicts."""
        if self.decoder.levels:
            latent = torch.stack(self.encoder.levels(images, plan, self.decoder.levels))
        else:
            latent = self.encoder(images, plan)  # (B, prefix + V, D), of the visible patches alone
        return self.decoder(latent, plan)  # type: ignore[no-any-return]

    def set_grad_checkpointing(self) -> None:
        """Compute layers of encoder and decoder again on the way back, which takes less memory."""
        super().set_grad_checkpointing()
        self.decoder.set_grad_checkpointing()


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
    """Build a masked autoencoder around any timm ViT, or Hiera.

    Args:
        name: The timm model; docs/models.md lists them.
        image_size: Side or (H, W) in pixels.
        in_channels: C.
        decoder: ``self_attention``.
        decoder_width: The paper's is 512, whatever the encoder.
        decoder_depth: The paper's is 8.
        decoder_heads: The paper's is 16.
        decoder_options: Further arguments of the decoder.
        normalize_pixels: Predict pixels normalised patch by patch (better features) or plain ones.
        **encoder_arguments: Further arguments of :class:`~mae.models.backbones.encoder.Encoder`, or of Hiera's, such as
            ``patch_size``.

    Raises:
        ValueError: The model is unknown or no ViT, or sizes do not fit each other.
    """
    DECODERS.resolve(decoder)  # before the encoder is built, which may take a while
    encoder = create_backbone(name, image_size, in_channels, masked=True, **encoder_arguments)
    assert isinstance(encoder, PatchBackbone), "asked for"
    objective = OBJECTIVES.create(name="pixels", options={"normalize": normalize_pixels})
    options = {"width": decoder_width, "depth": decoder_depth, "heads": decoder_heads, **(decoder_options or {})}
    return MaskedAutoencoder(encoder, create_decoder(encoder, objective, decoder, options=options), objective)


def create_decoder(
    encoder: PatchBackbone,
    objective: Objective,
    name: str | None = None,
    *,
    target: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Decoder:
    """Build a decoder between an encoder and an objective, by its name, or by the path of its class.

    Raises:
        ValueError: There is no such decoder, or an option is not one of its.
    """
    return DECODERS.create(
        encoder.width,
        objective.width(encoder.patch_size, encoder.in_channels),
        encoder.grid,
        encoder.num_prefix_tokens,
        name=name,
        target=target,
        options=options,
    )
