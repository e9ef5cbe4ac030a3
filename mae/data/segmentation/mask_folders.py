"""Folders of images, each with a mask of the same name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from torch import Tensor

from mae.data.segmentation.masks import IGNORE, MaskIds, read_ids, read_mask_size
from mae.data.sources.file_index import FileNames, Index
from mae.data.sources.files import FileSource, existing_folder
from mae.data.splits import Splits, with_validation

LAYOUTS = (
    ("{split}", "{split}annot"),  # CamVid
    ("images/{split}", "annotations/{split}"),  # ADE20K
    ("images/{split}", "masks/{split}"),
    ("{split}/images", "{split}/masks"),
    ("images", "masks"),
)
"""Where images and masks are looked for."""
SPLIT_FOLDERS = {"train": ("train", "training"), "val": ("val", "validation"), "test": ("test", "testing")}
"""What folders of a split are called."""
MASK_SUFFIX = ".png"


class SegmentationSource(FileSource):
    """Image files below a root, and a mask of each below another.

    Args:
        root: Folder of the images.
        names: The images.
        mask_root: Folder of the masks.
        mask_names: The masks, in the order of their images.
        ids: What stands in the masks.
    """

    def __init__(self, root: Path, names: FileNames, mask_root: Path, mask_names: FileNames, ids: MaskIds) -> None:
        super().__init__(root, names)
        self.mask_root = mask_root
        self.mask_names = mask_names
        self.ids = ids
        self.mask_classes = ids.classes

    def mask_path(self, index: int) -> Path:
        """Return the file of a mask."""
        return self.mask_root / self.mask_names[index]

    def mask_size(self, index: int) -> tuple[int, int]:
        """Return (H, W) of a mask from its header. Raises as ``mask`` does."""
        return read_mask_size(self.mask_path(index))

    def mask(self, index: int) -> Tensor:
        """Return the class of each pixel, (H, W) uint8."""
        path = self.mask_path(index)
        return self.ids.classify(read_ids(path), str(path))

    def with_classes(self, classes: tuple[str, ...]) -> SegmentationSource:
        """Return the same images, of these classes."""
        ids = replace(self.ids, classes=classes)
        return SegmentationSource(self.root, self.names, self.mask_root, self.mask_names, ids)


def segmentation_folder(
    root: str | None = None,
    images_at: str | None = None,
    masks_at: str | None = None,
    classes: int | Sequence[str] | None = None,
    ignore: int | Sequence[int] | None = IGNORE,
    index: str | None = None,
    run_dir: Path | None = None,
) -> Splits:
    """Images with masks in one of the ``LAYOUTS``, or where ``images_at`` and ``masks_at`` say.

    Names alone are compared; ``mae.data.segmentation.mask_inspection.open_masks`` looks into the masks.

    Args:
        root: The folder.
        images_at: Where images are below it, such as ``rgb/{split}``; None looks.
        masks_at: As ``images_at``.
        classes: Their number, or their names by id; None counts them later.
        ignore: Ids that carry no label.
        index: Folder for lists of images that runs share.
        run_dir: Keeps the run's own lists, so that a resumed one sees what it began with.

    Raises:
        ValueError: There is no such layout, an image has no mask or a mask no image, or an option is wrong.
        FileNotFoundError: The folder does not exist.
    """
    lists = Index(index, run_dir)
    path, ids = existing_folder(root, "segmentation_folder"), MaskIds.of(classes, ignore)
    images_at, masks_at = _layout(path, images_at, masks_at)
    parts: dict[str, SegmentationSource] = {}
    for split in SPLIT_FOLDERS if "{split}" in images_at else ("train",):
        images, masks = (_folder(path, template, split) for template in (images_at, masks_at))
        if images and masks:
            found = lists.find(images, split), lists.find(masks, f"{split}_masks")
            parts[split] = SegmentationSource(images, found[0], masks, _paired(images, masks, *found), ids)
        elif masks or (images and split != "test"):  # masks for a test are often withheld
            here, gone = (masks, images_at) if masks else (images, masks_at)
            raise ValueError(
                f"{here} is there, and {path / gone.replace('{split}', split)} is not: add it, or remove it"
            )
    if "train" not in parts:
        raise ValueError(
            f"{path / images_at.replace('{split}', 'train')} does not exist: training wants images and masks"
        )
    splits = with_validation(parts["train"], parts.get("val"), parts.get("test"))
    return replace(splits, keep=lists.keep)


def _layout(root: Path, images_at: str | None, masks_at: str | None) -> tuple[str, str]:
    """Return the templates of the folders of images and masks."""
    if images_at is not None and masks_at is not None:
        if images_at == masks_at or ("{split}" in images_at) != ("{split}" in masks_at):
            raise ValueError(
                f"data.images_at={images_at} and data.masks_at={masks_at} do not fit: give two folders, and {{split}} in both or "
                f"neither"
            )
        return images_at, masks_at
    if images_at is not None or masks_at is not None:
        raise ValueError(
            f"data.images_at={images_at} and data.masks_at={masks_at}: give both, or neither, and they are looked for"
        )
    for images, masks in LAYOUTS:
        if _folder(root, images, "train") and _folder(root, masks, "train"):
            return images, masks
    known = ", ".join(f"{images} + {masks}" for images, masks in LAYOUTS).replace("{split}", "train")
    raise ValueError(
        f"data.root={root} holds no images with masks: none of {known} is there, so say where they are with data.images_at and "
        f"data.masks_at"
    )


def _folder(root: Path, template: str, split: str) -> Path | None:
    """Return the folder of a split, None where there is none."""
    folders = (root / template.replace("{split}", name) for name in SPLIT_FOLDERS[split])
    return next((folder for folder in folders if folder.is_dir()), None)


def _paired(root: Path, mask_root: Path, names: FileNames, mask_names: FileNames) -> FileNames:
    """Return the mask of each image.

    Raises:
        ValueError: An image has no mask, or a mask no image.
    """
    masks = {_stem(name): name for name in mask_names if name.lower().endswith(MASK_SUFFIX)}
    stems = list(map(_stem, names))
    if alone := [name for name, stem in zip(names, stems, strict=True) if stem not in masks]:
        raise ValueError(
            f"{root / alone[0]} has no mask{_others(alone)}: {mask_root} wants a PNG of the same name; data=folder takes images "
            f"without masks"
        )
    if left := sorted(masks.keys() - set(stems)):
        raise ValueError(
            f"{mask_root / masks[left[0]]} has no image{_others(left)}: {root} wants one of the same name, or remove the mask"
        )
    return FileNames.of(masks[stem] for stem in stems)


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _others(names: list[str]) -> str:
    return f", and so it is with {len(names) - 1:,} more" if len(names) > 1 else ""
