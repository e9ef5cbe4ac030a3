"""A draw of a few labelled images, the same number or share of every class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


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
