"""What a report says of a run's config: names, captions, colours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mae.config.schema.data import Data
from mae.config.schema.roots import FinetuneConfig, RunConfig
from mae.report import segmentation_pictures
from mae.report.page import run_pictures


def report_content(folder: Path, config: RunConfig, caption: str) -> dict[str, Any]:
    """Return what ``write_run_report`` takes from the config of a run; ``caption`` is of reconstructions."""
    data = config.data
    segmented = isinstance(config, FinetuneConfig) and config.task.name == "segmentation"
    shown = segmentation_pictures.CAPTION if segmented else caption
    return {
        "data_name": data_name(data),
        "seed": config.seed,
        "pictures": run_pictures(folder, shown, channels=data.channels, bits=data.bits),
        "pictures_title": "Segmentations" if segmented else "Reconstructions",
    }


def data_name(data: Data) -> str:
    """Return what a person calls the data: a known name, the folder's, or the source's."""
    values = data.model_dump()
    return str(values.get("name") or Path(values.get("root") or values["source"]).name or values["source"])
