"""Our folder: ``config.json`` says what to build, ``model.safetensors`` holds the weights."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from mae.models.backbones.backbone import Backbone
from mae.models.masked_model import MaskedModel

FORMAT = "mae-1"


@dataclass
class Checkpoint:
    """Weights under our names, whatever file they came from.

    Attributes:
        source: The path, for messages.
        kind: What it is, in words.
        config: ``encoder``, and where there is one ``decoder`` and ``normalize_pixels``; or the ``objective``, where it was
            another. Each part is its ``name`` or ``_target_``, and its options.
        state: ``encoder.vit.*`` and ``decoder.*`` tensors.
        ignored: Keys of the file that belong to neither, each known by name.
    """

    source: str
    kind: str
    config: dict[str, Any]
    state: dict[str, Tensor]
    ignored: list[str] = field(default_factory=list)

    @property
    def has_decoder(self) -> bool:
        """Whether it can reconstruct."""
        return "decoder" in self.config


def describe(model: MaskedModel | Backbone) -> dict[str, Any]:
    """Return all that is needed to build the model again, as plain values.

    Raises:
        ValueError: Its encoder holds an object that no name and options build.
    """
    encoder = model.encoder if isinstance(model, MaskedModel) else model
    if not encoder.config:
        raise ValueError(
            "this encoder holds a ViT object that no name and options of timm's build, so no file could say what to build: keep "
            "encoder.vit.state_dict(), or make it a PatchBackbone class of your own, named by its path (docs/architecture.md)"
        )
    config = dict(model.config) if isinstance(model, MaskedModel) else {"encoder": model.config}
    return {**config, "pixel_mean": encoder.pixel_mean, "pixel_std": encoder.pixel_std}


def save(model: MaskedModel | Backbone, folder: str | Path) -> Path:
    """Write a model as ``config.json`` and ``model.safetensors``; an encoder alone is saved without decoder.

    Both files appear under their names only when they are complete.

    Returns:
        The folder.
    """
    folder, config = Path(folder), {"format": FORMAT, **describe(model)}
    folder.mkdir(parents=True, exist_ok=True)
    prefix = "" if isinstance(model, MaskedModel) else "encoder."
    state = {prefix + key: value.detach().contiguous().cpu() for key, value in model.state_dict().items()}
    save_file(state, folder / ".model.safetensors", metadata={"format": "pt"})
    (folder / ".config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for name in ("model.safetensors", "config.json"):
        (folder / f".{name}").replace(folder / name)
    return folder
