"""A look at the masks before training: what is wrong with them, and which classes there are."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mae.data.progress_bar import with_progress
from mae.data.reading.decode import UnreadableImageError
from mae.data.segmentation.mask_folders import SegmentationSource
from mae.data.segmentation.masks import IGNORE, MaskError, numbered, refuse_other_size
from mae.data.source import Source, Subset, evenly_spaced
from mae.data.splits import Splits

MASKS_DECODED = 1000


@dataclass(frozen=True, eq=False)
class MaskInspection:
    """What a sample of the training masks holds.

    Attributes:
        classes: Names of the K classes.
        pixels: (K,) int64, pixels of each.
        unlabelled: Pixels that carry no label.
        count: Masks looked at.
    """

    classes: tuple[str, ...]
    pixels: Tensor
    unlabelled: int
    count: int

    def __str__(self) -> str:
        labelled = int(self.pixels.sum())
        without = self.unlabelled / (labelled + self.unlabelled)
        share, commonest = (self.pixels / labelled).max(dim=0)
        return (
            f"{len(self.classes)} classes in {self.count:,} masks; {without:.1%} of the pixels have no label, and {share:.1%} of "
            f"the others are {self.classes[int(commonest)]!r}"
        )


def open_masks(splits: Splits) -> tuple[Splits, MaskInspection]:
    """Read the headers of all images and masks, decode up to 1,000 masks of each split, evenly spread, and name the classes.

    Masks that cannot be read are passed over: where a run meets one, another image stands in.

    Returns:
        The splits, of which ``mask_classes`` is known, and what was seen in training.

    Raises:
        ValueError: There are no masks, or not two classes in them.
        MaskError: A mask differs from its image in size, shows classes as colours, or holds what is no class.
    """
    own = splits.own
    for name, source in own.items():
        _check_sizes(_masked(source), name)
    train = _masked(own["train"])
    counts, looked = _count(train, "train")
    seen = counts[:IGNORE].nonzero().flatten().tolist()
    if len(seen) < 2:
        held = f"one class, {seen[0]}" if seen else "no label"
        ignored = [str(value) for value in train.ids.ignore] if counts[IGNORE] else []
        hint = f"; pixels of {' and '.join(ignored)} are passed over, as data.ignore says" if ignored else ""
        raise ValueError(
            f"the {looked:,} training masks looked at hold {held}{hint}: segmentation tells two or more apart"
        )
    classes = train.mask_classes or numbered(seen[-1] + 1)
    known = replace(
        splits,
        train=_with_classes(splits.train, classes),
        val=_with_classes(splits.val, classes),
        test=splits.test and _with_classes(splits.test, classes),
        whole=splits.whole and _with_classes(splits.whole, classes),
    )
    for name, source in known.own.items():
        if name != "train" and not _count(source, name)[0][:IGNORE].any():
            raise ValueError(f"no pixel of the {name} masks looked at has a label: nothing could be scored on them")
    return known, MaskInspection(classes, counts[: len(classes)], int(counts[IGNORE]), looked)


def _masked(source: Source) -> SegmentationSource:
    if not isinstance(source, SegmentationSource):
        raise ValueError("segmentation needs masks, and these data have none: data=segmentation_folder reads them")
    return source


def _with_classes(source: Source, classes: tuple[str, ...]) -> Source:
    if isinstance(source, Subset):
        return Subset(_with_classes(source.source, classes), source.indices)
    return _masked(source).with_classes(classes)


def _check_sizes(source: SegmentationSource, split: str) -> None:
    for index in with_progress(range(len(source)), len(source), f"comparing {split} images with their masks", "pairs"):
        try:
            refuse_other_size(source.name(index), source.size(index), source.mask_size(index))
        except UnreadableImageError:
            continue


def _count(source: Source, split: str) -> tuple[Tensor, int]:
    """Return the pixels of each class among some masks, (256,) int64, the last those without a label; and how many masks."""
    counts, looked, error = torch.zeros(IGNORE + 1, dtype=torch.int64), 0, None
    indices = evenly_spaced(len(source), MASKS_DECODED).tolist()
    for index in with_progress(indices, len(indices), f"looking at {split} masks", "masks"):
        try:
            mask = source.mask(index)
        except UnreadableImageError as unreadable:
            error = unreadable
            continue
        assert mask is not None, "asked for where images have masks"
        counts += mask.flatten().bincount(minlength=IGNORE + 1)
        looked += 1
    if not looked:
        raise MaskError(f"none of the {split} masks looked at can be read: {error}")
    return counts, looked
