"""Labels of whole images: opened, drawn from, and matched with the classes that a classifier knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mae.config.schema.roots import FinetuneConfig
from mae.data.few_labels import few_labels
from mae.data.open_splits import open_splits, refuse_stream
from mae.data.source import Source, Subset
from mae.data.splits import Splits


def open_images(config: FinetuneConfig, run_dir: Path) -> Splits:
    """Open the data, which give every image by its number.

    Raises:
        ValueError: They come in a stream, or are not what the source wants.
        FileNotFoundError: The folder does not exist.
    """
    options = config.data.model_dump()
    refuse_stream(**options)
    return open_splits(**options, run_dir=run_dir)


def labelled_splits(config: FinetuneConfig, run_dir: Path) -> Splits:
    """Open labelled data, with the draw of training labels that the config asks for.

    Raises:
        ValueError: There are no labels, fewer than asked for, or none of a class that is to be recognised.
        FileNotFoundError: The folder does not exist.
    """
    splits = open_images(config, run_dir)
    source, train = config.data.source, splits.train
    if source == "segmentation_folder":
        raise ValueError(
            "data=segmentation_folder has masks, and labels of no whole image: task=segmentation learns from masks"
        )
    if train.labels is None:
        raise ValueError(
            f"protocol={config.protocol.name} needs labels, and data={source} has none: data=image_folder reads them from "
            f"folders, train/<class>/, and data=arrays from train_labels.npy"
        )
    counts = _check_classes(source, train)
    for name, split in (("validation", splits.val), ("test", splits.test)):
        if split is not None and split.labels is not None:
            unseen = np.flatnonzero((np.bincount(split.labels, minlength=len(counts)) > 0) & (counts == 0))
            if len(unseen):
                raise ValueError(
                    f"the class {train.classes[unseen[0]]!r} has images for {name} and none for training: add some, or leave the "
                    f"class out"
                )
    chosen = few_labels(train.labels, train.classes, config.seed, config.labels_per_class, config.label_fraction)
    return splits if len(chosen) == len(train) else replace(splits, train=Subset(train, chosen), undrawn=train)


def _check_classes(source: str, train: Source) -> np.ndarray:
    """Return how many training images each class has, or raise where there are not two to tell apart."""
    assert train.labels is not None, "asked for where there are labels"
    if len(train.classes) < 2:
        raise ValueError(f"data={source} has one class, {train.classes[0]!r}: a classifier needs two or more")
    counts = np.bincount(train.labels, minlength=len(train.classes))
    if (counts > 0).sum() < 2:
        raise ValueError(
            f"data={source} has {len(train.classes)} classes, and only {train.classes[counts.argmax()]!r} has training images: a "
            f"classifier needs two or more"
        )
    return counts


def match_classes(found: Sequence[str], trained: Sequence[str], source: str) -> dict[int, int]:
    """Return the classifier's number of each class of the data, by name.

    Raises:
        ValueError: The data have no labels, or a class that the classifier does not know.
    """
    if not found:
        raise ValueError(f"data={source} has no labels to score against: data=image_folder reads them from folders")
    unknown = [name for name in found if name not in trained]
    if unknown:
        raise ValueError(
            f"the classifier's head has {len(trained)} classes, and data={source} has {len(found)}, among them {unknown[0]!r}, "
            f"which it was not trained on: evaluate on its own classes, or train a new head"
        )
    return {number: list(trained).index(name) for number, name in enumerate(found)}
