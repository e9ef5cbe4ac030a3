"""Shards that the tests of this room draw, streams of them, and their batches."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mae.data.datamodule import ImageData
from mae.data.loading.batches import Batch
from mae.data.shards.manifest import Manifest, Shard, Split
from mae.data.splits import Splits
from mae.data.streaming.stream import Encoded, EncodedSource, Shards, Stream


def png(number: int, kind: str = "PNG") -> bytes:
    """Draw an image of one colour, another one for each number below 512."""
    colour = [number // 64 % 8, number // 8 % 8, number % 8]
    file = io.BytesIO()
    Image.fromarray(np.full((16, 16, 3), np.array(colour) * 32 + 16, np.uint8)).save(file, kind)
    return file.getvalue()


def number_of(image: torch.Tensor) -> int:
    """Return which one of ``png`` an image (3, H, W) shows."""
    red, green, blue = (int(value) // 32 for value in image[:, 0, 0])
    return 64 * red + 8 * green + blue


def write_shard(path: Path, numbers: range, *, suffix: str = "png") -> Path:
    """Write a tar of samples, each of an image and a class, as webdataset does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number in numbers:
            for name, data in ((f"{number:04}.{suffix}", png(number)), (f"{number:04}.cls", b"1")):
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    return path


def write_shards(root: Path, shards: int, images: int = 8, split: str = "train", start: int = 0) -> str:
    """Write shards of so many images each; return their pattern."""
    for shard in range(shards):
        first = start + shard * images
        write_shard(root / f"{split}-{shard:03}.tar", range(first, first + images))
    return f"{root}/{split}-{{000..{shards - 1:03}}}.tar"


def write_manifest(root: Path, **splits: int) -> None:
    """Write the manifest of shards of so many images each."""
    parts = {}
    for split, images in splits.items():
        shards = tuple(Shard(path.name, images, 0, "") for path in sorted(root.glob(f"{split}-*.tar")))
        parts[split] = Split(shards, images * len(shards), (), 3, 16, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    Manifest({}, {}, parts).write(root)


def options(root: str | Path, **changes: Any) -> dict[str, Any]:
    plain = {"stream": False, "images": None, "buffer": 1000, "lanes": None, "val_root": None}
    return {"source": "webdataset", "root": str(root), **plain, **changes}


class Drawn(Shards):
    """Shards in memory."""

    def __init__(self, shards: int, images: int) -> None:
        super().__init__([f"shard {shard}" for shard in range(shards)], shards * images)
        self.each = images

    def read(self, shard: int) -> Iterator[Encoded]:
        for number in range(shard * self.each, (shard + 1) * self.each):
            yield Encoded(f"{number:04}", png(number))


def stream(shards: Shards | int = 8, images: int = 8, *, buffer: int = 40, readers: int | None = None) -> Stream:
    made = Drawn(shards, images) if isinstance(shards, int) else shards
    sample = EncodedSource([Encoded("sample", png(0))])
    return Stream(made, np.arange(len(made.names)), sample, buffer, readers)


def build(source: Stream, **changes: Any) -> ImageData:
    given: dict[str, Any] = {
        "image_size": (16, 16),
        "channels": 3,
        "effective_batch": 4,
        "micro_batch": 4,
        "min_scale": 0.3,
        "flip": True,
        "num_workers": 0,
        "seed": 5,
    }
    return ImageData(Splits(source, source.sample, None, ""), **{**given, **changes})


def epoch(data: ImageData, number: int = 0, loader: Any = None) -> list[Batch]:
    loader = data.train_dataloader() if loader is None else loader
    loader.sampler.set_epoch(number)
    return list(loader)


def numbers(batches: list[Batch]) -> list[int]:
    return [number_of(image) for batch in batches for image in batch.images]


BARE = ("callbacks.pictures=0", "callbacks.rank=false", "data.image_size=16", "batch_size=8", "epochs=1")
