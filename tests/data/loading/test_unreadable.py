"""Damaged images: counted, named, replaced, and too many of them the end of a run."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mae.data.loading.batches import ImageDataset
from mae.data.loading.unreadable import TooManyUnreadableError, UnreadableImages
from mae.data.reading.decode import UnreadableImageError
from mae.data.reading.transforms import TrainTransform
from mae.data.sources.file_index import scan
from mae.data.sources.files import FileSource
from mae.run.exits import run_job
from tests.data.drawing import read_image, write_folder
from tests.runs import REPOSITORY, job

BARE = ("data=folder", "batch_size=8", "callbacks.rank=false", "callbacks.pictures=0", "data.num_workers=0")


def damage(root: Path, numbers: list[int]) -> None:
    for number in numbers:
        path = root / f"image_{number:03}.png"
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("total", "budget", "most"), [(1000, 0.01, 10), (1999, 0.01, 19), (50, 0.01, 1), (50, 0.0, 0), (10, 1.0, 10)]
)
def test_the_budget_is_a_share_and_one_image_at_least(total: int, budget: float, most: int) -> None:
    ledger = UnreadableImages(total, budget)
    assert ledger.most == most
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ledger.add(f"image {number} cannot be read" for number in range(most))
    with pytest.raises(
        TooManyUnreadableError, match=rf"{most + 1} of {total:,} images cannot be read.*max_unreadable={budget:g}"
    ):
        ledger.add(["one more cannot be read"])


def test_an_image_counts_once_and_a_later_part_of_the_run_goes_on_counting(tmp_path: Path) -> None:
    path = tmp_path / "run" / "unreadable.txt"
    first = UnreadableImages(300, 0.01, path)
    with pytest.warns(UserWarning, match=r"a\.png cannot be read.*listed in .*unreadable\.txt"):
        first.add(["a.png cannot be read"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # one warning is enough
        first.add(["a.png cannot be read", "b.png cannot be read"])
    second = UnreadableImages(300, 0.01, path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second.add(["b.png cannot be read", "c.png cannot be read"])
    assert path.read_text().splitlines() == [f"{name}.png cannot be read" for name in "abc"]
    with pytest.raises(TooManyUnreadableError, match="4 of 300"):
        second.add(["d.png cannot be read"])


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_names_the_damaged_images_and_keeps_its_batches(tmp_path: Path, workers: int) -> None:
    root = write_folder(tmp_path / "data", 60)
    damage(root, [3, 20])
    prepared = job(
        "pretrain",
        tmp_path / "run",
        *BARE,
        f"data.root={root}",
        "data.max_unreadable=0.05",
        f"data.num_workers={workers}",
    )
    with pytest.warns(UserWarning, match="cannot be read"):
        results = prepared.run()
    named = (tmp_path / "run" / "unreadable.txt").read_text().splitlines()
    assert sorted(Path(line.partition(" cannot")[0]).name for line in named) == ["image_003.png", "image_020.png"]
    assert results["unreadable_images"] == 2
    assert json.loads((tmp_path / "run" / "results.json").read_text())["unreadable_images"] == 2
    assert results["images_seen"] == results["steps"] * 8


def test_too_many_end_the_run_with_one_line_and_keep_what_was_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, run = write_folder(tmp_path / "data", 60), tmp_path / "run"
    damage(root, [3, 20, 41])
    with pytest.raises(SystemExit) as ended:
        run_job(job("pretrain", run, *BARE, f"data.root={root}"))
    errors = capsys.readouterr().err
    assert ended.value.code == 2
    assert re.search(rf"^error: \d of 60 images cannot be read, listed in {run}/unreadable\.txt: more than", errors)
    assert "data.max_unreadable=0.01" in errors
    assert "Traceback" not in errors
    assert (run / "checkpoints" / "last.ckpt").is_file()


def test_a_file_that_may_not_be_read_is_one_of_them(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", 4)
    (root / "image_001.png").unlink()
    (root / "image_001.png").mkdir()
    with pytest.raises(UnreadableImageError, match=r"image_001\.png cannot be read \(Is a directory\)"):
        FileSource(root, ["image_001.png"]).open(0)


@pytest.mark.slow
def test_a_run_past_its_budget_goes_on_with_a_larger_one(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", 60)
    damage(root, [3, 20, 41])
    with pytest.raises(TooManyUnreadableError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        job("pretrain", tmp_path / "run", *BARE, f"data.root={root}").run()
    resumed = job(
        "pretrain", tmp_path / "run", "resume=true", "data=folder", f"data.root={root}", "data.max_unreadable=0.1"
    )
    assert resumed.run()["unreadable_images"] == 3


def test_names_that_no_line_can_hold_count_once(tmp_path: Path) -> None:
    odd = ["a\nb.png", "c\u2028d.png", "\udcff.png"]
    for _ in range(2):
        ledger = UnreadableImages(100, 0.5, tmp_path / "unreadable.txt")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ledger.add(f"{name} cannot be read (for a test)" for name in odd)
        assert ledger.count() == 3
    assert len((tmp_path / "unreadable.txt").read_text().rstrip("\n").split("\n")) == 3


def write_damaged(root: Path, count: int) -> set[str]:
    """Write images of which half are cut off and half have some bytes changed; return the paths of those cut off."""
    rng, noise, cut = random.Random(0), np.random.default_rng(0), set()
    for number in range(count):
        path = root / f"{number:03}.{('jpg', 'png')[number % 2]}"
        Image.fromarray(noise.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(path)
        content = bytearray(path.read_bytes())
        if number % 4 < 2:
            content = content[: rng.randrange(len(content) * 9 // 10)]
            cut.add(str(path))
        else:
            for _ in range(rng.choice([1, 3, 10])):
                content[rng.randrange(len(content))] = rng.randrange(256)
        path.write_bytes(content)
    return cut


def test_damaged_files_are_each_read_or_counted(tmp_path: Path) -> None:
    cut = write_damaged(tmp_path, 60)
    source = FileSource(tmp_path, scan(tmp_path).names)
    dataset = ImageDataset(source, TrainTransform((16, 16)), 3)
    items = [dataset[0, index] for index in range(60)]
    assert all(item.images.shape == (1, 3, 16, 16) for item in items)
    # Whatever was cut off is counted; of changed bytes, a decoder may not notice some.
    assert cut <= {message.split(" cannot")[0] for item in items for message in item.unreadable}


FUZZ = """
import sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
from mae.data.loading.batches import ImageDataset
from mae.data.sources.files import FileSource
from mae.data.sources.file_index import scan
from mae.data.reading.transforms import TrainTransform
root = Path(sys.argv[1])
source = FileSource(root, scan(root).names)
dataset = ImageDataset(source, TrainTransform((16, 16)), 3)
named = set()
for index in range(len(source)):
    item = dataset[0, index]
    assert item.images.shape == (1, 3, 16, 16)
    named |= {message.split(" cannot")[0] for message in item.unreadable}
print(len(source), *sorted(named), sep="\\n")
"""


@pytest.mark.slow
def test_five_hundred_damaged_files_neither_crash_nor_hang_and_each_is_read_or_counted(tmp_path: Path) -> None:
    # In a process of its own: a decoder that crashes takes its process with it.
    cut = write_damaged(tmp_path, 500)
    done = subprocess.run(
        [sys.executable, "-c", FUZZ, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert done.returncode == 0, done.stderr[-500:]
    count, *named = done.stdout.splitlines()
    assert int(count) == 500
    # Whatever was cut off is counted; of flipped bytes, a decoder may not notice some.
    assert cut <= set(named)
    assert len(named) > 250


def test_a_decompression_bomb_is_named_and_costs_no_memory(tmp_path: Path) -> None:
    # A header that claims 60,000 x 60,000 pixels: 10 GB, if anyone believed it.
    path = tmp_path / "bomb.jpg"
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(path)
    content = bytearray(path.read_bytes())
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 9] = (60_000).to_bytes(2) + (60_000).to_bytes(2)
    path.write_bytes(content)
    with pytest.raises(
        UnreadableImageError, match=r"bomb\.jpg cannot be read as an image \(it claims 60,000 x 60,000 pixels"
    ):
        read_image(path)
