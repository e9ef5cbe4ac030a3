"""What a report says of a run's config: names, captions, colours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mae.report import segmentation_pictures
from mae.report.page import run_pictures

CAPTION_NORMALIZED = (
    "Validation images: what went in, what the encoder saw, what the decoder predicted, and both together. Each hidden patch is "
    "shown with its own true mean and deviation, which the model does not predict."
)
CAPTION_PLAIN = "Validation images: what went in, what the encoder saw, what the decoder predicted, and both together."
CAPTION_CORRUPTED = (
    "Validation images: what went in, what the encoder saw (grey is the mask embedding, and some patches stand in for others), "
    "what it predicted of corrupted patches, and the rest beside it."
)


def report_content(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``write_run_report`` takes from the config of a run, as plain values."""
    data = config["data"]
    segmented = config.get("task", {}).get("name") == "segmentation"
    caption = segmentation_pictures.CAPTION if segmented else picture_caption(config.get("objective", {}))
    return {
        "data_name": data_name(data),
        "seed": config["seed"],
        "pictures": run_pictures(folder, caption, channels=data.get("channels") or 3, bits=data.get("bits") or 8),
        "pictures_title": "Segmentations" if segmented else "Reconstructions",
    }


def data_name(options: Mapping[str, Any]) -> str:
    """Return what a person calls the data: a known name, the folder's, or the source's."""
    return str(options.get("name") or Path(options.get("root") or options["source"]).name or options["source"])


def picture_caption(objective: Mapping[str, Any]) -> str:
    """Return what reconstructions of an objective show."""
    if objective.get("name") == "masked_patch_prediction":
        return CAPTION_CORRUPTED
    return CAPTION_NORMALIZED if objective.get("normalize") else CAPTION_PLAIN
