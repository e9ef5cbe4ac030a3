"""The model that an objective trains, from names and options; and again from what a checkpoint holds of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from mae.models.autoencoder import MaskedAutoencoder, create_decoder
from mae.models.backbones.backbone import PatchBackbone
from mae.models.backbones.create import create_backbone
from mae.models.masked_model import MaskedModel
from mae.models.patch_prediction import MaskedPatchPredictor
from mae.objectives.objective import OBJECTIVES


class Part(NamedTuple):
    """A part by its name, or by the path of its class, and its options."""

    name: str | None = None
    target: str | None = None
    options: Mapping[str, Any] = {}

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Part:
        """Return the part of a stored config: ``name`` or ``_target_``, and its options."""
        options = {key: value for key, value in config.items() if key not in ("name", "_target_")}
        return cls(config.get("name"), config.get("_target_"), options)


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
    backbone = create_patch_backbone(encoder)
    asked.check(patch_size=backbone.patch_size, channels=backbone.in_channels, bits=bits)
    if asked.hides == "embeddings":
        return MaskedPatchPredictor(backbone, asked)
    made = create_decoder(backbone, asked, decoder.name, target=decoder.target, options=decoder.options)
    return MaskedAutoencoder(backbone, made, asked)


def rebuild_masked_model(config: Mapping[str, Any]) -> MaskedModel:
    """Build a model again, without weights, from the ``config`` that it carries."""
    objective = stored_objective(config)
    return create_masked_model(config["encoder"], Part.of(config.get("decoder", {})), objective)


def stored_objective(config: Mapping[str, Any]) -> Part:
    """Return the objective of a stored model; that of an autoencoder of before objectives had names is MAE's."""
    if "objective" in config:
        return Part.of(config["objective"])
    return Part("pixels", None, {"normalize": config["normalize_pixels"]})


def create_patch_backbone(options: Mapping[str, Any]) -> PatchBackbone:
    """Build a backbone that can leave hidden patches out.

    Raises:
        ValueError: It cannot, or is not known.
    """
    made = create_backbone(**options, masked=True)
    assert isinstance(made, PatchBackbone), "asked for"
    return made
