"""Data sources by the name of their config group."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

from mae.data.segmentation.mask_folders import segmentation_folder
from mae.data.sources.arrays import arrays
from mae.data.sources.bundled import digits, torchvision_dataset
from mae.data.sources.files import folder, image_folder
from mae.data.splits import Splits
from mae.data.streaming.shard_urls import is_pattern

BATCH_KEYS = frozenset(
    [
        "image_size",
        "channels",
        "bits",
        "min_scale",
        "flip",
        "mean",
        "std",
        "repeats",
        "max_unreadable",
        "decode",
        "num_workers",
    ]
)
"""Keys of the config group ``data`` that every source has: they say how images become batches, not which images there are."""


def open_splits(source: str, *, run_dir: Path | None = None, **options: Any) -> Splits:
    """Open a data set by the name of its source, such as ``open_splits("folder", root="photos")``.

    A whole config group ``data`` will do: ``open_splits(**config["data"], run_dir=...)``.

    Args:
        source: One of ``SOURCES``.
        run_dir: Where an index of the data may be kept, so that a resumed run sees what it began with.
        options: What the source's function takes; ``BATCH_KEYS`` are passed over.

    Raises:
        ValueError: The data are not there, or not what the source wants; or it takes no such option.
        FileNotFoundError: The folder does not exist.
        ImportError: An extra is needed and not installed.
    """
    if source not in SOURCES:
        raise ValueError(f"data.source={source!r} is unknown: choose one of {', '.join(SOURCES)}")
    given = {key: value for key, value in options.items() if key not in BATCH_KEYS}
    taken = signature(SOURCES[source]).parameters
    for key, value in given.items():
        if key not in taken:
            takes = ", ".join(name for name in taken if name != "run_dir") or "nothing"
            raise ValueError(f"data.{key}={value} is not for data={source}, which takes {takes}: leave it out")
    return SOURCES[source](**given, **({"run_dir": run_dir} if "run_dir" in taken else {}))


def is_stream(source: str, *, root: str | None = None, stream: bool = False, **options: Any) -> bool:
    """Whether images come in a stream, without random access. Takes what ``open_splits`` takes."""
    return stream or (source == "webdataset" and is_pattern(root))


def refuse_stream(source: str, *, stream: bool = False, **options: Any) -> None:
    """Raise a ValueError where images come in a stream: it has no labels, and gives no image by its number."""
    if is_stream(source, stream=stream, **options):
        raise ValueError(
            f"data={source} is a stream, and labels need random access: download the data, and give "
            f"data.root=DIR{' without data.stream' if stream else ''}"
        )


def _huggingface(
    root: str | None = None,
    config: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    val_root: str | None = None,
    stream: bool = False,
    images: int | None = None,
    buffer: int = 1000,
    lanes: int | None = None,
) -> Splits:
    from mae.data.sources.huggingface import huggingface, stream_huggingface

    if stream:
        return stream_huggingface(root, config, image_column, val_root, images=images, buffer=buffer, readers=lanes)
    _refuse_given(images=images, lanes=lanes)
    return huggingface(root, config, image_column, label_column, val_root)


def _webdataset(
    root: str | None = None,
    val_root: str | None = None,
    stream: bool = False,
    images: int | None = None,
    buffer: int = 1000,
    lanes: int | None = None,
    run_dir: Path | None = None,
) -> Splits:
    from mae.data.shards.shard_folder import webdataset
    from mae.data.streaming.tar_streams import stream_webdataset

    if is_stream("webdataset", root=root, stream=stream):
        return stream_webdataset(root, val_root, images=images, buffer=buffer, readers=lanes)
    _refuse_given(images=images, lanes=lanes, val_root=val_root)
    return webdataset(root, run_dir)


def _refuse_given(**streaming: Any) -> None:
    for key, value in streaming.items():
        if value is not None:
            raise ValueError(f"data.{key}={value} is for streams alone: leave it out, or set data.stream=true")


SOURCES: dict[str, Callable[..., Splits]] = {
    "arrays": arrays,
    "digits": digits,
    "folder": folder,
    "image_folder": image_folder,
    "huggingface": _huggingface,
    "torchvision": torchvision_dataset,
    "webdataset": _webdataset,
    "segmentation_folder": segmentation_folder,
}
"""By name: a function that opens the data, and takes the keys of their config group but for ``BATCH_KEYS``."""
