"""The objectives by name."""

from __future__ import annotations

from mae.components.registry import Registry
from mae.objectives.objective import Objective

OBJECTIVES = Registry(
    "objective",
    Objective,  # type: ignore[type-abstract]
    {
        "pixels": "mae.objectives.pixels.Pixels",
        "masked_patch_prediction": "mae.objectives.corrupted.CorruptedPatches",
    },
)
