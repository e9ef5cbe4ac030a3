"""Data sources by the name of their config group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mae.data.files import folder, image_folder
from mae.data.known import digits, torchvision_dataset
from mae.data.sources import Splits


def load_splits(options: Mapping[str, Any]) -> Splits:
    """Open the data that the config group ``data`` names.

    Raises:
        ValueError: The data are not there, or not what the source wants.
        FileNotFoundError: The folder does not exist.
    """
    source = options["source"]
    if source == "digits":
        return digits()
    if source == "folder":
        return folder(options["root"])
    if source == "image_folder":
        return image_folder(options["root"])
    if source == "torchvision":
        return torchvision_dataset(options["name"], options["root"], options["download"])
    raise ValueError(f"data.source={source!r} is unknown: choose one of digits, folder, image_folder, torchvision")
