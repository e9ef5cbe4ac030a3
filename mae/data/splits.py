"""How a data set is cut into training, validation and test images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mae.data.source import Source, Subset

SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""The split that a word in the name of a file stands for."""


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
    undrawn: Source | None = None
    """All training images, where those of ``train`` are a draw of labels from them."""
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
