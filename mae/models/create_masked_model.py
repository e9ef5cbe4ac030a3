"""The model that an objective trains, from names and options; and again from what a checkpoint holds of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mae.components.registry import Part
from mae.models.autoencoder import MaskedAutoencoder, create_decoder
from mae.models.backbones.backbone import PatchBackbone
from mae.models.backbones.create_backbone import create_backbone
from mae.models.masked_model import MaskedModel
from mae.models.patch_prediction import MaskedPatchPredictor
from mae.objectives.objective import OBJECTIVES


def create_masked_model(encoder: Mapping[str, Any], decoder: Part, objective: Part, *, bits: int = 8) -> MaskedModel:
    """Build the model that an objective trains: of hidden patches an autoencoder, of hidden embeddings a predictor.

    Args:
        encoder: ``name`` or ``_target_``, ``image_size``, ``in_channels`` and options of the backbone.
        decoder: Not built where the objective needs none.
        objective: What is predicted, and how it is scored.
        bits: Of the images' pixels, which some targets need to know.

    Raises:
        ValueError: A part is unknown, has no such option, or does not fit the others.
    """
    asked = OBJECTIVES.create(**objective._asdict())
    backbone = create_backbone(**encoder, masked=True)
    assert isinstance(backbone, PatchBackbone), "asked for"
    asked.check(patch_size=backbone.patch_size, channels=backbone.in_channels, bits=bits)
    if asked.hides == "embeddings":
        return MaskedPatchPredictor(backbone, asked)
    made = create_decoder(backbone, asked, decoder.name, target=decoder.target, options=decoder.options)
    return MaskedAutoencoder(backbone, made, asked)


def rebuild_masked_model(config: Mapping[str, Any]) -> MaskedModel:
    """Build a model again, without weights, from the ``config`` that it carries."""
    return create_masked_model(config["encoder"], Part.of(config.get("decoder", {})), _stored_objective(config))


def _stored_objective(config: Mapping[str, Any]) -> Part:
    """Return the objective of a stored model; that of an autoencoder of before objectives had names is MAE's."""
    if "objective" in config:
        return Part.of(config["objective"])
    return Part("pixels", None, {"normalize": config["normalize_pixels"]})
