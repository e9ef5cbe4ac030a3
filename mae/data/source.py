"""What a source of images is, a part of one, and a few images spread over one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from mae.data.reading.decode import Picture


class Source(ABC):
    """Images by index, as stored."""

    classes: tuple[str, ...] = ()
    """Names of the K classes; empty where there are no labels."""
    labels: np.ndarray | None = None
    """(N,) int64, known without decoding any image; None where there are no labels."""
    mask_classes: tuple[str, ...] = ()
    """Names of the K classes that masks give to pixels; empty where there are no masks, or nobody has looked at them."""
    in_memory = False
    """Whether an image costs no reading and decoding."""
    stream_shards = 0
    """Shards of a stream, which cannot be read at random; 0 for all others."""

    @abstractmethod
    def __len__(self) -> int:
        """N."""

    @abstractmethod
    def open(self, index: int) -> Picture:
        """Open an image. Raises UnreadableImageError where it cannot be read."""

    @abstractmethod
    def name(self, index: int) -> str:
        """Return what a person calls this image: a path, or a number."""

    @property
    def sample(self) -> Source:
        """What can be opened for a look at the images: the source itself, or of a stream a few."""
        return self

    def image(self, index: int) -> Tensor:
        """Return an image (C, H, W), uint8 or float32. Raises UnreadableImageError where it cannot be read."""
        return self.open(index).decode()

    def size(self, index: int) -> tuple[int, int]:
        """Return (H, W) without decoding, where the format allows. Raises UnreadableImageError where it cannot be read."""
        return self.open(index).size

    def mask(self, index: int) -> Tensor | None:
        """Return the class of each pixel, (H, W) uint8, 255 where there is none; None where images have no masks.

        Raises:
            UnreadableImageError: It cannot be read.
            MaskError: It holds what is no class.
        """
        return None


class Subset(Source):
    """Some of a source's images, in the order of the indices."""

    def __init__(self, source: Source, indices: Sequence[int] | np.ndarray) -> None:
        self.source = source
        self.indices = np.asarray(indices, dtype=np.int64)
        self.classes = source.classes
        self.mask_classes = source.mask_classes
        self.in_memory = source.in_memory
        self.labels = None if source.labels is None else source.labels[self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def open(self, index: int) -> Picture:
        """Open an image."""
        return self.source.open(int(self.indices[index]))

    def size(self, index: int) -> tuple[int, int]:
        """Return (H, W)."""
        return self.source.size(int(self.indices[index]))

    def name(self, index: int) -> str:
        """Return what a person calls this image."""
        return self.source.name(int(self.indices[index]))

    def mask(self, index: int) -> Tensor | None:
        """Return the class of each pixel."""
        return self.source.mask(int(self.indices[index]))


def evenly_spaced(total: int, wanted: int) -> np.ndarray:
    """Return up to ``wanted`` indices, evenly spread over ``total``: the same in every run."""
    return np.unique(np.linspace(0, total - 1, min(total, wanted)).astype(np.int64))


def drawn(total: int, most: int) -> np.ndarray:
    """Return up to ``most`` indices of ``total``, in order, drawn at random: the same in every run.

    Where classes are compared it is this that they are thinned by: of classes that take turns, a stride would miss some.
    """
    if total <= most:
        return np.arange(total)
    return np.sort(np.random.default_rng(0).permutation(total)[:most])


def thinned(source: Source, most: int) -> Source:
    """Return up to ``most`` images of a source, see ``drawn``."""
    return source if len(source) <= most else Subset(source, drawn(len(source), most))
