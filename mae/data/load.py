"""Data sources by the name of their config group."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mae.data.files import folder, image_folder
from mae.data.known import digits, torchvision_dataset
from mae.data.sources import Splits

Options = Mapping[str, Any]


def load_splits(options: Options, run_dir: Path | None = None) -> Splits:
    """Open the data that the config group ``data`` describes.

    Args:
        options: Its values; ``source`` names one of ``SOURCES``.
        run_dir: Where an index of the data may be kept, so that a resumed run sees what it began with.

    Raises:
        ValueError: The data are not there, or not what the source wants.
        FileNotFoundError: The folder does not exist.
        ImportError: An extra is needed and not installed.
    """
    name = options["source"]
    if name not in SOURCES:
        raise ValueError(f"data.source={name!r} is unknown: choose one of {', '.join(SOURCES)}")
    return SOURCES[name](options, run_dir)


SOURCES: dict[str, Callable[[Options, Path | None], Splits]] = {
    "digits": lambda options, run_dir: digits(),
    "folder": lambda options, run_dir: folder(options["root"]),
    "image_folder": lambda options, run_dir: image_folder(options["root"]),
    "torchvision": lambda options, run_dir: torchvision_dataset(options["name"], options["root"], options["download"]),
}
