"""Data sources by the name of their config group."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mae.data.segmentation.mask_folders import segmentation_folder
from mae.data.sources.arrays import arrays
from mae.data.sources.bundled import digits, torchvision_dataset
from mae.data.sources.file_index import Index
from mae.data.sources.files import folder, image_folder
from mae.data.splits import Splits
from mae.data.streaming.shard_urls import is_pattern

Options = Mapping[str, Any]


def open_splits(options: Options, run_dir: Path | None = None) -> Splits:
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


def is_stream(options: Options) -> bool:
    """Whether images come in a stream, without random access."""
    return bool(options.get("stream")) or (options["source"] == "webdataset" and is_pattern(options["root"]))


def refuse_stream(options: Options) -> None:
    """Raise a ValueError where images come in a stream: it has no labels, and gives no image by its number."""
    if is_stream(options):
        raise ValueError(
            f"data={options['source']} is a stream, and labels need random access: download the data, and give "
            f"data.root=DIR{' without data.stream' if options.get('stream') else ''}"
        )


def _huggingface(options: Options, run_dir: Path | None) -> Splits:
    from mae.data.sources.huggingface import huggingface, stream_huggingface

    if is_stream(options):
        return stream_huggingface(options, run_dir)
    _refuse_keys(options, "images", "lanes")
    return huggingface(options, run_dir)


def _webdataset(options: Options, run_dir: Path | None) -> Splits:
    from mae.data.shards.shard_folder import webdataset
    from mae.data.streaming.tar_streams import stream_webdataset

    if is_stream(options):
        return stream_webdataset(options, run_dir)
    _refuse_keys(options, "images", "lanes", "val_root")
    return webdataset(options, run_dir)


def _refuse_keys(options: Options, *keys: str) -> None:
    for key in keys:
        if options.get(key) is not None:
            raise ValueError(f"data.{key}={options[key]} is for streams alone: leave it out, or set data.stream=true")


SOURCES: dict[str, Callable[[Options, Path | None], Splits]] = {
    "arrays": lambda options, run_dir: arrays(options["root"], options["layout"], options["pages"]),
    "digits": lambda options, run_dir: digits(),
    "folder": lambda options, run_dir: folder(options["root"], Index(options.get("index"), run_dir)),
    "image_folder": lambda options, run_dir: image_folder(options["root"], Index(options.get("index"), run_dir)),
    "huggingface": _huggingface,
    "torchvision": lambda options, run_dir: torchvision_dataset(options["name"], options["root"], options["download"]),
    "webdataset": _webdataset,
    "segmentation_folder": lambda options, run_dir: segmentation_folder(options, Index(options.get("index"), run_dir)),
}
