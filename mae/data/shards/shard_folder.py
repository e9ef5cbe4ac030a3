"""A folder of tar shards as data: its splits, their indices, and whether all is as it was packed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from mae.data.shards.manifest import Manifest, read_manifest
from mae.data.shards.shard_index import UNLABELLED, ShardIndex
from mae.data.shards.shard_source import ShardSource
from mae.data.shards.tar_members import index_shards
from mae.data.sources.files import existing_folder
from mae.data.splits import SPLIT_NAMES, Splits, with_validation


def webdataset(root: str | None, run_dir: Path | None = None) -> Splits:
    """``train-*.tar``, ``val-*.tar`` and ``test-*.tar`` of a folder; where no file is so named, all tars are for training.

    Args:
        root: The folder.
        run_dir: Where the index is kept once the run begins, so that a resumed one reads the same images.

    Raises:
        ValueError: There are no shards, one is damaged, or they are not those of their manifest or of the run.
        FileNotFoundError: The folder does not exist.
    """
    folder = existing_folder(root, "webdataset")
    found, manifest = shards_by_split(folder), read_manifest(folder)
    if manifest is not None:
        manifest.check(folder, found)
    own = None if run_dir is None else run_dir / "index"
    indices = {name: open_index(folder, name, paths, manifest, own) for name, paths in found.items()}
    classes = _classes(folder, indices, manifest)
    sources = {name: ShardSource(folder, index, classes) for name, index in indices.items()}
    splits = with_validation(sources["train"], sources.get("val"), sources.get("test"))
    return replace(
        splits,
        statistics=None if manifest is None else manifest.statistics,
        keep=None if own is None else partial(_keep, indices, own),
    )


def _keep(indices: Mapping[str, ShardIndex], folder: Path) -> None:
    for name, index in indices.items():
        index.save(folder / f"{name}.npz")


def shards_by_split(root: Path) -> dict[str, list[Path]]:
    """Return the tars of a folder by split, in the order of their names.

    Raises:
        ValueError: There are none, none for training, or one that belongs to no split.
    """
    paths = sorted(path for path in root.glob("*.tar") if not path.name.startswith("."))
    if not paths:
        packed = next((path.name for path in root.glob("*.tar.*") if not path.name.endswith(".partial")), None)
        hint = f" {packed} is compressed, and has to be unpacked to .tar to be read at random;" if packed else ""
        raise ValueError(f"data.root={root} holds no .tar:{hint} mae data pack SRC DST writes shards")
    found: dict[str, list[Path]] = {}
    for path in paths:
        words = path.stem.split("-")[:-1]  # what stands before a dash
        split = next((SPLIT_NAMES[word] for word in reversed(words) if word in SPLIT_NAMES), "")
        found.setdefault(split, []).append(path)
    if set(found) == {""}:
        return {"train": found[""]}
    if "" in found:
        raise ValueError(f"{found[''][0]} belongs to no split: name it train-..., val-... or test-..., or move it away")
    if "train" not in found:
        raise ValueError(f"data.root={root} has shards for {' and '.join(found)} and none for training: train-*.tar")
    return found


def open_index(
    root: Path, split: str, paths: Sequence[Path], manifest: Manifest | None, own: Path | None
) -> ShardIndex:
    """Return the index that the run began with, or that was packed with the shards, or a new one from their headers.

    Args:
        root: The folder of the shards.
        split: Its name.
        paths: Its shards.
        manifest: What was packed.
        own: Folder of the run's indices.

    Raises:
        ValueError: A shard is damaged, or they are other ones than the manifest or the run knows.
    """
    index = None if own is None else ShardIndex.load(own / f"{split}.npz")
    if index is not None and not index.fits(paths):
        raise ValueError(
            f"the {split} shards of data.root={root} are not those that the run began with, which {own}/{split}.npz lists: "
            f"put those back, or start a new run"
        )
    if index is None and manifest is not None:
        index = ShardIndex.load(root / "index" / f"{split}.npz")
    if index is None or not index.fits(paths):
        index = index_shards(paths)
    expected = len(index) if manifest is None else manifest.splits[split].images
    if len(index) != expected:
        raise ValueError(
            f"the {split} shards of {root} hold {len(index):,} images, and {expected:,} by manifest.json: pack again"
        )
    return index


def _classes(root: Path, indices: Mapping[str, ShardIndex], manifest: Manifest | None) -> tuple[str, ...]:
    """Return the names of the classes, numbers where nothing names them; none where training images have no labels."""
    if (indices["train"].labels == UNLABELLED).any():
        return ()
    for name, index in indices.items():
        if (index.labels == UNLABELLED).any():
            raise ValueError(
                f"the {name} shards of {root} have no labels, and those for training have: label all or none"
            )
    most = max(int(index.labels.max()) for index in indices.values())
    named = () if manifest is None else manifest.splits["train"].classes
    if named and most >= len(named):
        raise ValueError(f"{root} has images of class {most}, and manifest.json names {len(named)} classes: pack again")
    return named or tuple(str(number) for number in range(most + 1))
