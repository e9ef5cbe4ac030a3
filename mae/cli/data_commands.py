"""The ``mae data`` commands: pack, check and measure images before a run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from mae.run.exits import one_line_errors

app = typer.Typer(no_args_is_help=True, help="Pack, check and measure images.")

Src = Annotated[str, typer.Argument(metavar="SRC", help="data.root: a folder of images, of shards, ...; - for none.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...", help="Such as data=huggingface; default: what SRC holds.", show_default=False
    ),
]
Workers = Annotated[int | None, typer.Option(help="Processes that decode; default: the cores but one.", min=0)]

NAMES_SHOWN = 3
DESCRIBED = ("source", "root", "name", "config", "layout", "pages", "image_column", "label_column")
"""Values of the config group that decide what is packed, and are noted in its manifest."""


@app.command()
def pack(
    src: Src,
    dst: Annotated[Path, typer.Argument(metavar="DST", help="A new folder; one that was begun goes on.")],
    overrides: Overrides = None,
    short_side: Annotated[
        int | None, typer.Option(help="Make larger images this small; default: bytes unchanged.")
    ] = None,
    quality: Annotated[int, typer.Option(help="Of JPEGs that are made smaller.")] = 92,
    shard_images: Annotated[int, typer.Option(help="Images of a shard at most; 200 MB end one, too.")] = 10_000,
    workers: Workers = None,
) -> None:
    """Write any data as tar shards: mae data pack photos shards --short-side 256."""
    from mae.data.tools.pack import PackOptions
    from mae.data.tools.pack import pack as write_shards

    with one_line_errors():
        options = PackOptions(short_side, quality, shard_images)
        config = source_config(src, overrides or [])
        described = {key: config[key] for key in DESCRIBED if config.get(key) is not None}
        manifest = write_shards(_open(config), dst, options, described, _workers(workers))
    for name, split in manifest.splits.items():
        size = sum(shard.bytes for shard in split.shards)
        shards = f"{len(split.shards):,} shard{'s' * (len(split.shards) > 1)}"
        _say(f"{name:8} {split.images:,} images in {shards}, {size / 1e6:,.1f} MB")
    if (dst / "unreadable.txt").is_file():
        count = len((dst / "unreadable.txt").read_text(encoding="utf-8").splitlines())
        _say(f"left out {count:,} that cannot be read, listed in {dst / 'unreadable.txt'}", style="bold red")
    _say(f"now      mae pretrain data=webdataset data.root={dst}")


@app.command()
def check(
    src: Src,
    overrides: Overrides = None,
    into: Annotated[Path | None, typer.Option(help="A CSV file for the whole list.")] = None,
    tiny: Annotated[int, typer.Option(help="Report images with a side of fewer pixels.")] = 32,
    workers: Workers = None,
) -> None:
    """List images that cannot be read, and others to know of; status 1 where some cannot: mae data check photos."""
    from mae.data.sources.files import existing_folder
    from mae.data.tools.check import FATAL, check_images, check_shards, write_findings

    with one_line_errors():
        config = source_config(src, overrides or [])
        findings = (
            list(check_shards(existing_folder(config["root"], "webdataset")))
            if config["source"] == "webdataset"
            else []
        )
        images = 0
        if findings:
            _say("the images were not looked at: first mend the shards", style="bold red")
        else:
            splits = _open(config)
            findings = list(check_images(splits, tiny, _workers(workers)))
            images = sum(map(len, splits.values()))
        if into is not None:
            write_findings(findings, into)
    _show_findings(findings, images)
    if into is not None:
        _say(f"list     {into}")
    if any(finding.kind in FATAL for finding in findings):
        raise typer.Exit(1)


@app.command()
def stats(
    src: Src,
    overrides: Overrides = None,
    images: Annotated[int | None, typer.Option(help="Evenly spread ones of so many; default: all.", min=1)] = None,
    workers: Workers = None,
) -> None:
    """Measure the training images, and print the overrides to paste: mae data stats photos."""
    from mae.data.segmentation.masks import IGNORE
    from mae.data.tools.describe import class_shares, describe, histogram

    with one_line_errors():
        source = _open(source_config(src, overrides or []))["train"]
        found = describe(source, images, _workers(workers))
    short = found.sizes.min(axis=1)
    measured = f"{len(short):,} of {found.count:,}" if len(short) < found.count else f"all {found.count:,}"
    _say(f"images     {measured}" + (f"; {found.unreadable:,} cannot be read" if found.unreadable else ""))
    if found.class_pixels is None:
        _say(f"classes    {len(source.classes):,}" if source.classes else "classes    no labels")
    else:
        shares = class_shares(found.class_pixels, source.mask_classes)
        without = found.class_pixels[IGNORE] / found.class_pixels.sum()
        _say(f"classes    {len(shares):,} in masks, {without:.1%} of whose pixels have no label")
        _say(*(f"           {line}" for line in shares))
    _say(f"channels   {found.channels} of {found.bits} bits")
    for name, sides in (("height", found.sizes[:, 0]), ("width", found.sizes[:, 1]), ("short side", short)):
        _say(f"{name:10} {sides.min():,} / {int(_median(sides)):,} / {sides.max():,} pixels (least / median / most)")
    _say(*(f"           {line}" for line in histogram(short)))
    _say(f"data.mean={_listed(found.mean)} data.std={_listed(found.std)}")


def source_config(src: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Return the values of the config group ``data`` for a source: as the overrides say, else by what ``src`` holds.

    Raises:
        ValueError: An override is wrong, or the source has no folder.
    """
    from mae.config.composing import compose

    if not any(text.startswith("data=") for text in overrides):
        overrides = [f"data={_kind(Path(src).expanduser())}", *overrides]
    config: dict[str, Any] = compose("pretrain", overrides).data.model_dump()
    if src == "-":
        return config
    if "root" not in config:
        raise ValueError(f"SRC={src}: data={config['source']} reads no folder, so give - in its place")
    return {**config, "root": src}


def _kind(root: Path) -> str:
    """Return the option of the config group ``data`` that reads a folder or file."""
    from mae.data.sources.arrays import SPLIT_SUFFIXES

    if root.is_file() and root.suffix.lower() in SPLIT_SUFFIXES:
        return "arrays"
    if any(root.glob("*.tar")):
        return "webdataset"
    train = root / "train"
    classes = train.is_dir() and any(entry.is_dir() and not entry.name.startswith(".") for entry in train.iterdir())
    return "image_folder" if classes else "folder"


def _open(config: Mapping[str, Any]) -> dict[str, Any]:
    from mae.data.open_splits import is_stream, open_splits

    if is_stream(config):
        raise ValueError(
            f"data={config['source']} is a stream, and mae data reads images at random: download the data, and give their folder"
        )
    return open_splits(config).own


def _workers(given: int | None) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores - 1 if given is None else given


def _show_findings(findings: Sequence[Any], images: int) -> None:
    from mae.data.tools.check import KINDS
    from mae.report.tables import Row, Table, print_table

    rows = []
    for kind, meaning in KINDS.items():
        found = [finding for finding in findings if finding.kind == kind]
        names = [finding.name for finding in found]
        more = f" and {len(names) - NAMES_SHOWN:,} more" if len(names) > NAMES_SHOWN else ""
        if names:
            rows.append(Row([kind, ", ".join(names[:NAMES_SHOWN]) + more, f"{len(found):,}"]))
            _say(f"{kind}: {meaning} (first: {found[0].detail})")
    if rows:
        print_table(Console(), Table(f"{images:,} images", ["kind", "names", "count"], rows, names=2))
    else:
        _say(f"{images:,} images, and nothing wrong with them")


def _median(values: Any) -> float:
    return float(sorted(values)[len(values) // 2])


def _listed(values: Sequence[float]) -> str:
    return f"[{','.join(f'{value:g}' for value in values)}]"


def _say(*lines: str, style: str | None = None) -> None:
    for line in lines:
        Console().print(line, style=style, markup=False, highlight=False, soft_wrap=True)
