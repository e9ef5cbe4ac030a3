"""How fast images come: from files, packed shards and large photographs, beside the usual pipeline and decoding alone.

    python benchmarks/loader.py DIR                    speed on a folder of photographs, at 224 pixels
    python benchmarks/loader.py DIR --megapixels 12    the same on large ones, made from them
    python benchmarks/loader.py DIR --crops            how far crops are from Pillow's, at full and at reduced scale
    python benchmarks/loader.py --memory               what a worker takes for a thousand and for a million paths

One process, one thread: figures are images per second and core. The time is that of the process, which leaves out what other
processes take; the ways take turns, and the best of the rounds counts. The usual pipeline is that of facebookresearch/mae:
torchvision's ImageFolder, Pillow, RandomResizedCrop (bicubic, 20% to all of the image), flip, ToTensor, Normalize.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import random
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import simplejpeg
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader
from torchvision import datasets
from torchvision import transforms as v1

from mae.data.loading.batches import BatchLoader, ImageDataset
from mae.data.loading.order import ShuffledSampler
from mae.data.loading.unreadable import UnreadableImages
from mae.data.reading.decode import REDUCTIONS, EncodedPicture
from mae.data.reading.transforms import TrainTransform, Window, cut
from mae.data.shards.shard_folder import webdataset
from mae.data.source import Source
from mae.data.sources.file_index import FileNames, scan
from mae.data.sources.files import FileSource
from mae.data.tools.pack import PackOptions, pack

SIZE = (224, 224)
SHORT_SIDE = 256
BATCH = 50


def usual(root: Path) -> Iterable:
    """Return the loader of facebookresearch/mae; ImageFolder wants a class, so the images stand below one."""
    transform = v1.Compose(
        [
            v1.RandomResizedCrop(SIZE, scale=(0.2, 1.0), interpolation=v1.InterpolationMode.BICUBIC),
            v1.RandomHorizontalFlip(),
            v1.ToTensor(),
            v1.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        ]
    )
    return DataLoader(datasets.ImageFolder(str(root), transform), batch_size=BATCH, shuffle=True)


def ours(source: Source, repeats: int = 1) -> BatchLoader:
    """Return batches as a pretraining run sees them."""
    dataset = ImageDataset(source, TrainTransform(SIZE), 3, repeats=repeats)
    order = ShuffledSampler(len(source), 1, seed=0)
    return BatchLoader(dataset, order, UnreadableImages(len(source), 0.0), batch_size=BATCH // repeats)


def decoding(names: list[Path]) -> Iterable:
    """Decode every file whole, and nothing else: no loader that decodes whole files can be faster."""
    for name in names:
        simplejpeg.decode_jpeg(name.read_bytes())
        yield 1


def enlarged(folder: Path, into: Path, megapixels: float, count: int) -> Path:
    """Write photographs of so many megapixels, 4:3, as a camera would: enlarged, with grain, quality 90."""
    width = round((megapixels * 1e6 * 4 / 3) ** 0.5 / 16) * 16
    height = width * 3 // 4
    rng = np.random.default_rng(0)
    for name in sorted(folder.rglob("*.[jJ]*"))[:count]:
        with Image.open(name) as opened:
            large = opened.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
        grain = rng.normal(0, 3, (height, width, 1)).astype(np.float32)
        pixels = (np.asarray(large, dtype=np.float32) + grain).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(into / f"{name.stem}.jpg", quality=90)
    return into


def speed(folder: Path, rounds: int, scratch: Path, console: Console) -> None:
    """Print a row for each way to load a folder."""
    root = scratch / "usual"
    root.mkdir()
    (root / "images").symlink_to(folder.resolve())
    names = scan(folder).names
    files = FileSource(folder, names)
    sizes = np.array([files.size(i) for i in range(len(files))])
    packed = scratch / "packed"
    pack({"train": files}, packed, PackOptions(short_side=SHORT_SIDE), {})
    shards = webdataset(str(packed))
    ways: dict[str, tuple[Callable[[], Iterable], int]] = {
        "usual pipeline (ImageFolder, Pillow)": (lambda: usual(root), 1),
        "this loader, files": (lambda: ours(files), 1),
        "this loader, files, data.repeats=4": (lambda: ours(files, 4), 4),
        f"this loader, packed, short side {SHORT_SIDE}": (lambda: ours(shards.whole), 1),
        "decoding whole files, alone": (lambda: decoding([folder / name for name in names]), 1),
    }
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, (build, repeats) in ways.items():
            batches = build()
            began = time.process_time()
            for _ in batches:
                pass
            best[name] = min(best[name], (time.process_time() - began) / (len(files) * repeats))
    peer = best["usual pipeline (ImageFolder, Pillow)"]
    table = Table(
        title=f"{len(files)} images, median {np.median(sizes.prod(1)) / 1e6:.2f} megapixels, to {SIZE[0]} pixels"
    )
    for head in ("", "images per second and core", "ratio"):
        table.add_column(head, justify="left" if not head else "right")
    for name, seconds in best.items():
        table.add_row(name, f"{1 / seconds:,.0f}", f"{peer / seconds:.2f}")
    console.print(table)


def crops(folder: Path, count: int, console: Console) -> None:
    """Print the mean absolute difference of crops from Pillow's antialiased bicubic ones, in grey levels of 255."""
    transform, rng = TrainTransform(SIZE), random.Random(0)
    table = Table(title="Mean absolute difference from Pillow, in grey levels")
    for head in ("decoded at", "crops", "mean", "99% of crops below", "worst"):
        table.add_column(head, justify="right")
    differences: dict[int, list[float]] = {}
    for name in list(scan(folder).names)[:count]:
        data = (folder / name).read_bytes()
        with Image.open(io.BytesIO(data)) as opened:
            if opened.mode != "RGB" or opened.getexif().get(0x0112, 1) != 1:
                continue
            whole = opened.convert("RGB")
        window = transform.draw((whole.height, whole.width), rng)
        for reduce in (1, *REDUCTIONS):
            # Enlarge the picture instead of shrinking the crop: the reduction is chosen as in training.
            large = whole.resize((whole.width * reduce, whole.height * reduce), Image.Resampling.BICUBIC)
            buffer = io.BytesIO()
            large.save(buffer, "jpeg", quality=95, subsampling=0)
            picture = EncodedPicture(buffer.getvalue(), name)
            side = Window(*(value * reduce for value in window))
            fits = min(window.height / SIZE[0], window.width / SIZE[1])
            if not (1 <= fits < 2):
                continue
            ours_ = cut(picture, [side], SIZE)[0].permute(1, 2, 0).numpy()
            with Image.open(io.BytesIO(buffer.getvalue())) as decoded:
                box = (side.left, side.top, side.left + side.width, side.top + side.height)
                theirs = np.asarray(decoded.resize(SIZE[::-1], Image.Resampling.BICUBIC, box=box))
            differences.setdefault(reduce, []).append(float(np.abs(ours_.astype(int) - theirs.astype(int)).mean()))
    for reduce, values in differences.items():
        row = (np.mean(values), np.quantile(values, 0.99), np.max(values))
        table.add_row(f"1/{reduce}", str(len(values)), *(f"{value:.2f}" for value in row))
    console.print(table)


def memory(console: Console) -> None:
    """Print what a worker process takes for itself, for a thousand and for a million paths, forked and spawned."""
    table = Table(title="Memory of a worker's own (USS), MB")
    for head in (
        "paths",
        "names in this loader, MB",
        "forked",
        "spawned",
        "forked, a list of strings",
        "spawned, a list of strings",
    ):
        table.add_column(head, justify="right")
    for count in (1_000, 1_000_000):
        made = [f"photos/{number // 1000:05}/camera_{number:09}.jpg" for number in range(count)]
        kept = FileNames.of(made)
        size = (kept.text.numel() + 8 * len(kept)) / 1e6
        cells = [f"{taken(method, held):,.0f}" for held in (kept, made) for method in ("fork", "spawn")]
        table.add_row(f"{count:,}", f"{size:,.1f}", *cells)
    console.print(table)


class Touch(torch.utils.data.Dataset):
    """Reads every name, as an epoch does, and tells the memory of its process."""

    def __init__(self, names: FileNames | list[str]) -> None:
        self.names = names

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> float:
        for number in range(len(self.names)):
            self.names[number]
        rollup = Path("/proc/self/smaps_rollup").read_text()
        private = [int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private")]
        return sum(private) / 1e3


def taken(method: str, names: FileNames | list[str]) -> float:
    """Return the megabytes that one worker holds alone after it has read every name."""
    loader = DataLoader(Touch(names), num_workers=1, multiprocessing_context=multiprocessing.get_context(method))
    return float(next(iter(loader)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megapixels", type=float, help="enlarge the photographs to so many")
    parser.add_argument("--count", type=int, default=24, help="photographs that are enlarged")
    parser.add_argument("--crops", action="store_true")
    parser.add_argument("--memory", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    console = Console()
    if given.memory:
        memory(console)
    if given.folder is None:
        return
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        if given.crops:
            crops(given.folder, given.count, console)
        elif given.megapixels:
            (scratch / "large").mkdir()
            speed(
                enlarged(given.folder, scratch / "large", given.megapixels, given.count), given.rounds, scratch, console
            )
        else:
            speed(given.folder, given.rounds, scratch, console)


if __name__ == "__main__":
    main()
