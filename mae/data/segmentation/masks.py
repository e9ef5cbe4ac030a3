"""Masks: the class of each pixel, from a file to a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mae.data.loading.batches import Crops, ImageDataset
from mae.data.reading.decode import by_pillow
from mae.data.reading.transforms import Window
from mae.data.source import Source

IGNORE = 255
"""What stands in a tensor where a pixel has no label."""
MOST_CLASSES = 255
ID_LIMIT = 1 << 16
FOREIGN = 256  # stands in a table for what is no class

ONE_CHANNEL = ("1", "L", "P", "I")  # Pillow's names of modes, the last with ;16 behind it
SCALED = {"L;2": 85, "L;4": 17}  # by what Pillow multiplies grey of few bits, so that white is 255


class MaskError(ValueError):
    """A mask that does not fit its image, or holds what is no class."""


@dataclass(frozen=True)
class MaskIds:
    """What the ids of masks stand for.

    Attributes:
        classes: Names of the classes 0 to K - 1; empty where their number is not known yet.
        ignore: Ids that carry no label.
    """

    classes: tuple[str, ...] = ()
    ignore: tuple[int, ...] = (IGNORE,)

    @classmethod
    def of(cls, classes: int | Sequence[str] | None, ignore: int | Sequence[int] | None) -> MaskIds:
        """Return what ``data.classes`` and ``data.ignore`` say.

        Raises:
            ValueError: They are no classes, or no ids.
        """
        names = _names(classes)
        ids = tuple(ignore) if isinstance(ignore, list | tuple) else () if ignore is None else (ignore,)
        for one in ids:
            if type(one) is not int or not 0 <= one < ID_LIMIT:
                raise ValueError(f"data.ignore={one} is no id: masks hold whole numbers from 0 to {ID_LIMIT - 1:,}")
        return cls(names, ids)

    @cached_property
    def table(self) -> np.ndarray:
        """(65,536,) uint16: the class of each id, IGNORE where it carries no label, FOREIGN where it is none."""
        table = np.full(ID_LIMIT, FOREIGN, dtype=np.uint16)
        known = len(self.classes) or MOST_CLASSES
        table[:known] = np.arange(known)
        table[list(self.ignore)] = IGNORE
        return table

    def classify(self, ids: np.ndarray, name: str) -> Tensor:
        """Return the class of each pixel, uint8, from ids (H, W) as stored.

        Args:
            ids: Integers.
            name: What a person calls the mask.

        Raises:
            MaskError: An id is no class.
        """
        classes = self.table[ids]
        if (foreign := classes == FOREIGN).any():
            most = int(ids[foreign].max())
            known = len(self.classes)
            here = f"there are {known} classes" if known else f"there can be {MOST_CLASSES} classes"
            ignore = ",".join(map(str, (*self.ignore, most)))
            more = f"data.classes={most + 1} counts it, " if most < MOST_CLASSES else ""
            raise MaskError(
                f"{name} holds the id {most}, and {here}, 0 to {(known or MOST_CLASSES) - 1}: {more}data.ignore=[{ignore}] passes "
                f"over it"
            )
        return torch.from_numpy(classes.astype(np.uint8))


def _names(given: Any) -> tuple[str, ...]:
    """Return the names of the classes that ``data.classes`` gives: none, a number or a list."""
    if given is None:
        return ()
    names = tuple(map(str, given)) if isinstance(given, list | tuple) else ()
    count = given if type(given) is int else len(names)
    if not 2 <= count <= MOST_CLASSES:
        held = f" ({count} names)" if names else ""
        raise ValueError(
            f"data.classes={given}{held} is neither a number from 2 to {MOST_CLASSES} nor a list of so many names: 8 bits hold no "
            f"more, and a single class leaves nothing to tell apart"
        )
    if double := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"data.classes names {double!r} twice: give each class a name of its own")
    return names or numbered(count)


def numbered(count: int) -> tuple[str, ...]:
    """Return names for classes that have none."""
    return tuple(map(str, range(count)))


def read_ids(path: Path) -> np.ndarray:
    """Return the ids in a mask (H, W), as stored: the values of one channel, or the numbers of a palette.

    Raises:
        UnreadableImageError: It cannot be read.
        MaskError: It has several channels.
    """
    with by_pillow(path, str(path)) as opened:
        mode, scale = opened.mode, SCALED.get(str(opened.tile[0].args), 1)
        ids = np.asarray(opened)
    refuse_colours(path, mode)
    return ids.astype(np.uint16) // scale


def read_mask_size(path: Path) -> tuple[int, int]:
    """Return (H, W) of a mask, from its header.

    Raises:
        UnreadableImageError: It cannot be read.
        MaskError: It has several channels.
    """
    with by_pillow(path, str(path)) as opened:
        mode, (width, height) = opened.mode, opened.size
    refuse_colours(path, mode)
    return height, width


def refuse_colours(path: Path, mode: str) -> None:
    """Raise a MaskError where a mask, of one of Pillow's modes, shows classes as colours."""
    if mode.partition(";")[0] not in ONE_CHANNEL:
        raise MaskError(
            f"{path} holds colours ({mode}), and a mask is to hold a class id for each pixel: write one channel, or a palette"
        )


def fitting_mask(source: Source, index: int, size: tuple[int, int]) -> Tensor | None:
    """Return the mask of an image of ``size`` (H, W), see ``Source.mask``.

    Raises:
        UnreadableImageError: It cannot be read.
        MaskError: It has another size, or holds what is no class.
    """
    mask = source.mask(index)
    if mask is not None:
        refuse_other_size(source.name(index), size, (mask.shape[0], mask.shape[1]))
    return mask


def refuse_other_size(name: str, image: tuple[int, int], mask: tuple[int, int]) -> None:
    """Raise a MaskError where image and mask, (H, W), are not of one size."""
    if image != mask:
        raise MaskError(
            f"{name} has {image[1]} x {image[0]} pixels, upright, and its mask {mask[1]} x {mask[0]}: draw or resize it anew"
        )


def nearest_crop(mask: Tensor, window: Window, size: tuple[int, int]) -> Tensor:
    """Cut a window out of a mask (H, W) and resize it: each pixel takes the class at its centre, exactly.

    In whole numbers: torch's "nearest-exact" rounds, and takes another pixel now and then, such as for 960 pixels to 224.
    """
    rows, columns = (
        (2 * torch.arange(new) + 1) * old // (2 * new) + first
        for first, old, new in zip(window[:2], window[2:], size, strict=True)
    )
    return mask.index_select(0, rows).index_select(1, columns)


class SegmentationDataset(ImageDataset):
    """As ``ImageDataset``, with masks in place of labels: (R, H, W) uint8, of the same windows, flipped with their images.

    A mask is cut at full scale, also where its image is decoded at a reduced one and its window moved to that grid, which is less
    than a 224th of the side. Where a pixel is missing it has no label.
    """

    def example(self, candidate: int, epoch: int, index: int) -> tuple[Crops, Any]:
        """Return the crops of an image, in the place of ``index``, and those of its mask."""
        picture = self.source.open(candidate)
        mask = fitting_mask(self.source, candidate, picture.size)
        assert mask is not None, "asked for where images have masks"
        parts = []
        for rng in self.chance(epoch, index):  # drawn anew, as for the image: the same windows, and the same flips
            part = nearest_crop(mask, self.transform.draw(picture.size, rng), self.transform.image_size)
            parts.append(self.transform.finish(part, rng))
        crops, masks = self.crops(picture, epoch, index), torch.stack(parts)
        return crops, masks if crops.valid is None else masks.masked_fill(~crops.valid, IGNORE)
