"""Data sets of the Hugging Face hub, and local files in its formats: read at random, or as a stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mae.data.reading.decode import EncodedPicture, Picture, UnreadableImageError, read_bytes
from mae.data.source import Source
from mae.data.sources.huggingface_files import find_columns, load_parts
from mae.data.splits import Splits, with_validation
from mae.data.streaming.remote import RemoteFile, UnreachableError
from mae.data.streaming.stream import Encoded, Shards, stream_splits

ROWS = 16
"""Rows of a stream that are taken from a file at a time."""


def huggingface(
    root: str | None,
    config: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    val_root: str | None = None,
) -> Splits:
    """A data set of the hub, or local parquet files or a folder of images, with its own splits.

    Args:
        root: A name of the hub, a folder, a parquet file or a pattern.
        config: Of a data set that has several.
        image_column: None takes the only one that holds images.
        label_column: None takes the only one of class names, or of numbers that is called label.
        val_root: Data whose training split is for validation.

    Raises:
        ValueError: It cannot be opened, or which of its columns hold images and labels is not clear.
        FileNotFoundError: A local path does not exist.
        ImportError: The extra is not installed.
    """
    parts = load_parts(root, config, val_root)
    image, label = find_columns(parts["train"].features, str(root), image_column, label_column)
    sources = {name: HuggingFaceSource(part, image, f"{root} {name}") for name, part in parts.items()}
    if label is not None:
        sources = _labelled(parts, sources, label)
    return with_validation(sources["train"], sources.get("val"), sources.get("test"))


class HuggingFaceSource(Source):
    """A split in an Arrow table, which ``datasets`` maps from its cache."""

    def __init__(self, dataset: Any, column: str, origin: str) -> None:
        self.rows = dataset.select_columns([column]).cast_column(column, _encoded_images())
        self.column = column
        self.origin = origin

    def __len__(self) -> int:
        return len(self.rows)

    def open(self, index: int) -> Picture:
        """Open an image."""
        cell, name = self.rows[index][self.column], self.name(index)
        if cell is None or (cell["bytes"] is None and cell["path"] is None):
            raise UnreadableImageError(f"{name} is empty")
        if cell["bytes"] is None:
            return EncodedPicture(read_bytes(cell["path"]), cell["path"])
        return EncodedPicture(cell["bytes"], name)

    def name(self, index: int) -> str:
        """Return the data set, the split and the number."""
        return f"{self.origin} image {index}"


def _encoded_images() -> Any:
    from datasets import Image

    return Image(decode=False)


def _labelled(
    parts: Mapping[str, Any], sources: dict[str, HuggingFaceSource], column: str
) -> dict[str, HuggingFaceSource]:
    """Give the splits their labels; where those for training have them, others without are left out."""
    labels = {name: read_labels(part, column) for name, part in parts.items()}
    train = labels["train"]
    if train is None:
        return sources
    names = getattr(parts["train"].features[column], "names", None)
    values = np.arange(len(names)) if names else np.unique(train)
    known: dict[str, HuggingFaceSource] = {}
    for name, numbers in labels.items():
        if numbers is None:
            continue
        unknown = numbers[~np.isin(numbers, values)]
        if len(unknown):
            raise ValueError(f"{sources[name].origin} has the class {unknown[0]} in {column!r}, which training has not")
        known[name] = sources[name]
        known[name].labels = np.searchsorted(values, numbers).astype(np.int64)
        known[name].classes = tuple(str(value) for value in names or values)
    return known


def read_labels(dataset: Any, column: str) -> np.ndarray | None:
    """Return the labels (N,) as stored, without reading images; None where some have none, or -1."""
    values = dataset.select_columns([column]).with_format("arrow")[:][column]
    if values.null_count:
        return None
    labels: np.ndarray = values.to_numpy()
    return None if labels.dtype.kind in "iu" and (labels < 0).any() else labels


def stream_huggingface(
    root: str | None,
    config: str | None = None,
    image_column: str | None = None,
    val_root: str | None = None,
    *,
    images: int | None = None,
    buffer: int = 1000,
    readers: int | None = None,
) -> Splits:
    """The same data as they come over the network, for pretraining: nothing is kept, and there are no labels.

    Args:
        root: As of ``huggingface``.
        config: As of ``huggingface``.
        image_column: As of ``huggingface``.
        val_root: As of ``huggingface``.
        images: For training; None asks the hub.
        buffer: Images of a device among which the next one is drawn.
        readers: Files that a device reads side by side; None chooses.

    Raises:
        ValueError: As ``huggingface``, or nothing says how many images there are.
    """
    parts = load_parts(root, config, val_root, streaming=True)
    train = parts["train"]
    column, _ = find_columns(train.features, str(root), image_column, labels=False)
    stored = (train.info.splits or {}).get(str(train.split))
    count = images or getattr(stored, "num_examples", None)
    if not count:
        raise ValueError(f"nothing says how many images data.root={root} has for training: data.images=N does")
    shards = {name: HuggingFaceShards(part, column, f"{root} {name}", count) for name, part in parts.items()}
    return stream_splits(shards["train"], shards.get("val"), buffer, readers)


class HuggingFaceShards(Shards):
    """The files of a streamed split."""

    def __init__(self, dataset: Any, column: str, origin: str, images: int) -> None:
        super().__init__([f"{origin} file {number}" for number in range(dataset.num_shards)], images)
        self.rows = dataset.select_columns([column]).cast_column(column, _encoded_images())
        self.column = column

    def read(self, shard: int) -> Iterator[Encoded]:
        """Yield the images of a file."""
        for number, cell in enumerate(self._cells(shard)):
            yield Encoded(f"{self.names[shard]} image {number}", _content(cell))

    def _cells(self, shard: int) -> Iterator[Mapping[str, Any] | None]:
        # `iter`, not `__iter__`: that one looks which worker of torch it is in, and would deal the rows of a file out once more.
        batches = self.rows.shard(num_shards=len(self.names), index=shard).iter(batch_size=ROWS)
        try:
            for batch in batches:
                yield from batch[self.column]
        except Exception as error:  # each of the libraries below has errors of its own
            raise UnreachableError(
                f"{self.names[shard]} cannot be read ({error}): resume=true goes on from here"
            ) from None


def _content(cell: Mapping[str, Any] | None) -> bytes:
    """Return the content of a file in a row of a stream; nothing where the row has none, which no decoder takes for an image."""
    if cell is None or (cell["bytes"] is None and cell["path"] is None):
        return b""
    if cell["bytes"] is not None:
        return bytes(cell["bytes"])
    with RemoteFile(cell["path"]) as file:
        return b"".join(iter(file.read, b""))
