"""What a source of images is, and how one is cut into splits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Splits:
    """The parts of a data set; ``test`` is None where the data have none, and is read once, at the very end."""

    train: Source
    val: Source
    test: Source | None
    origin: str
    """Where the validation split comes from, in words."""
    whole: Source | None = None
    """All training images, where those of ``val`` were held out of them."""
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """Mean and deviation per channel of the training pixels, where the data bring them; see ``measure_pixels``."""
    keep: Callable[[], None] | None = None
    """Writes down what took long to find out, as the run begins."""

    @property
    def parts(self) -> tuple[Source, ...]:
        """The splits that there are."""
        return (self.train, self.val) if self.test is None else (self.train, self.val, self.test)

    @property
    def own(self) -> dict[str, Source]:
        """The splits that the data themselves have, by name: what was held out of training is back in it."""
        train, val = (self.train, self.val) if self.whole is None else (self.whole, None)
        named = {"train": train, "val": val, "test": self.test}
        return {name: source for name, source in named.items() if source is not None}


VALIDATION_SHARE = 0.1
VALIDATION_MOST = 5000


def hold_out(source: Source, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Split indices into (kept, held out), each sorted: a function of the source's length and labels and the seed.

    Where there are labels every class gives its share, so that a small validation split sees them all.
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(source))
    if source.labels is not None:
        # Walk the classes side by side: rank within the class, as a share of the class, decides who is held out first.
        shares = np.empty(len(order))
        labels = source.labels[order]
        for label in np.unique(labels):
            members = np.flatnonzero(labels == label)
            shares[members] = (np.arange(len(members)) + generator.random()) / len(members)
        order = order[np.argsort(shares, kind="stable")]
    return np.sort(order[count:]), np.sort(order[:count])


def with_validation(train: Source, val: Source | None, test: Source | None) -> Splits:
    """Return splits; where there is no validation split, hold out a tenth (5,000 at most) of the training images.

    Raises:
        ValueError: There is a single image, so none can be held out.
    """
    if val is not None:
        return Splits(train, val, test, "the data's own")
    if len(train) < 2:
        raise ValueError(f"{len(train)} image is too few: one more is needed for validation")
    count = min(VALIDATION_MOST, max(1, round(VALIDATION_SHARE * len(train))))
    kept, held = hold_out(train, count)
    origin = f"{count:,} images held out of training, the same in every run"
    return Splits(Subset(train, kept), Subset(train, held), test, origin, whole=train)


def few_labels(
    labels: np.ndarray, classes: Sequence[str], seed: int, per_class: int | None, fraction: float | None
) -> np.ndarray:
    """Return sorted indices of a draw of labelled images.

    Args:
        labels: (N,) class of each image.
        classes: Names, for the message.
        seed: Another seed is another draw.
        per_class: This many of every class, or
        fraction: this share of every class, at least one image each.

    Raises:
        ValueError: A class has fewer images than asked for, or both are given.
    """
    if per_class is not None and fraction is not None:
        raise ValueError(f"labels_per_class={per_class} and label_fraction={fraction} are both given: choose one")
    if per_class is None and fraction is None:
        return np.arange(len(labels))
    if fraction is not None and not 0 < fraction <= 1:
        raise ValueError(f"label_fraction={fraction} is no share: choose a number in (0, 1]")
    if per_class is not None and per_class < 1:
        raise ValueError(f"labels_per_class={per_class} leaves no label: choose 1 or more")
    generator = np.random.default_rng(seed)
    chosen = []
    for label, name in enumerate(classes):
        members = generator.permutation(np.flatnonzero(labels == label))
        wanted = per_class if per_class is not None else max(1, round(float(fraction or 0) * len(members)))
        if len(members) < wanted:
            least = np.bincount(labels, minlength=len(classes)).min()
            remedy = (
                f"labels_per_class={least} is the most that every class can give" if least else "leave the class out"
            )
            raise ValueError(
                f"the class {name!r} has {len(members)} training images, fewer than the {wanted} asked for: {remedy}"
            )
        chosen.append(members[:wanted])
    return np.sort(np.concatenate(chosen))
