"""Masked patch prediction, the self-supervision of the ViT paper (arXiv 2010.11929, appendix B.1.2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mae.masking.corruption import CorruptionPlan
from mae.masking.plan import MaskPlan, gather_patches
from mae.models.backbones.backbone import PatchBackbone
from mae.models.backbones.encoder import Encoder
from mae.models.masked_model import MaskedModel
from mae.objectives.objective import Objective


class MaskedPatchPredictor(MaskedModel):
    """Corrupt patch embeddings, encode all of them, and say what the corrupted patches looked like.

    Args:
        encoder: Its patch embedding must see one patch alone: what a CNN sees of its neighbours would give hidden ones away.
        objective: What is predicted of the corrupted patches.

    Raises:
        ValueError: The encoder is no plain ViT, or the objective does not fit it.
    """

    encoder: Encoder

    def __init__(self, encoder: PatchBackbone, objective: Objective) -> None:
        super().__init__(_plain_vit(encoder, objective), objective)
        self.mask_embedding = nn.Parameter(torch.zeros(encoder.width))
        self.predict = nn.Linear(encoder.width, objective.width(encoder.patch_size, encoder.in_channels))
        nn.init.normal_(self.mask_embedding, std=0.02)
        nn.init.trunc_normal_(self.predict.weight, std=0.01)  # logits start near 0, and the loss at ln 512
        nn.init.zeros_(self.predict.bias)

    @property
    def config(self) -> dict[str, Any]:
        """Plain values that build it again."""
        return {"encoder": self.encoder.config, "objective": self.objective.config}

    def predict_hidden(self, images: Tensor, plan: MaskPlan) -> Tensor:
        """Return what is predicted of the corrupted patches, (B, M, width of the objective).

        Raises:
            ValueError: The plan does not say what becomes of the corrupted patches.
        """
        if not isinstance(plan, CorruptionPlan):
            raise ValueError(
                f"objective={self.objective.title} corrupts embeddings: it needs masking=corruption, a CorruptionPlan"
            )
        corrupted = plan.hide(self.encoder.embed(images), self.mask_embedding)
        tokens = self.encoder.encode(corrupted)[:, self.encoder.num_prefix_tokens :]
        return self.predict(gather_patches(tokens, plan.masked))  # type: ignore[no-any-return]


def _plain_vit(encoder: PatchBackbone, objective: Objective) -> Encoder:
    if not isinstance(encoder, Encoder):
        raise ValueError(
            f"objective={objective.title} corrupts the patch embeddings of a timm ViT, and {encoder.name} is none: choose "
            f"objective=pixels"
        )
    if encoder.hybrid:
        raise ValueError(
            f"objective={objective.title} corrupts patch embeddings, and the CNN of {encoder.name} sees beyond its patch: masked "
            f"ones would leak through its receptive field; choose objective=pixels, which hides the pixels themselves, or a "
            f"plain ViT"
        )
    return encoder
