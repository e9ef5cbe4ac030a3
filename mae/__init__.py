"""Masked autoencoders: pretrain a Vision Transformer on your own images, then probe or fine-tune it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mae.checkpoints.format import save
    from mae.checkpoints.load import load_autoencoder, load_encoder
    from mae.masking.plan import MaskPlan
    from mae.models.autoencoder import MaskedAutoencoder, create_autoencoder

__all__ = ["MaskPlan", "MaskedAutoencoder", "create_autoencoder", "load_autoencoder", "load_encoder", "save"]

_HOMES = {
    "MaskPlan": "mae.masking.plan",
    "MaskedAutoencoder": "mae.models.autoencoder",
    "create_autoencoder": "mae.models.autoencoder",
    "load_autoencoder": "mae.checkpoints.load",
    "load_encoder": "mae.checkpoints.load",
    "save": "mae.checkpoints.format",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, and torch with it: ``import mae`` alone is cheap (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'mae' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    """Return the public names beside what is there already."""
    return sorted({*globals(), *__all__})
