"""What is wrong with images, found before a run meets it."""

from __future__ import annotations

import csv
import random
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from mae.data.reading.decode import MOST_PIXELS, UnreadableImageError
from mae.data.sources.bundled import digits
from mae.data.sources.files import folder
from mae.data.tools.check import Finding, check_images, check_shards, write_findings
from tests.data.drawing import smooth, write_folder, write_image
from tests.data.tarring import pack_folder, write_classes


def found_in(root: Path, workers: int = 0, tiny: int = 16) -> dict[str, str]:
    """Return the kind of what was found, by file name."""
    return {Path(one.name).name: one.kind for one in check_images(folder(str(root)).own, tiny, workers)}


def test_nothing_is_wrong_with_good_images(tmp_path: Path) -> None:
    write_folder(tmp_path, 4)
    write_image(tmp_path / "photo.jpg", 40, 50)
    assert found_in(tmp_path) == {}


@pytest.mark.parametrize("workers", [0, 2])
def test_each_kind_is_told(tmp_path: Path, workers: int) -> None:
    write_folder(tmp_path, 3)
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("no image")
    photo = write_image(tmp_path / "photo.jpg", 64, 64).read_bytes()
    (tmp_path / "short.jpg").write_bytes(photo[: len(photo) // 2])
    (tmp_path / "same.jpg").write_bytes(photo)
    write_image(tmp_path / "thin.png", 8, 40)
    frames = [Image.fromarray(smooth(20, 20, seed=seed)) for seed in range(3)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert found_in(tmp_path, workers) == {
        "empty.png": "unreadable",
        "text.jpg": "unreadable",
        "short.jpg": "truncated",
        "same.jpg": "duplicate",
        "thin.png": "tiny",
        "moving.gif": "animated",
    }
    duplicate = next(one for one in check_images(folder(str(tmp_path)).own) if one.kind == "duplicate")
    assert duplicate.detail == f"the same as train {tmp_path / 'photo.jpg'}"


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_images_that_claim_too_much_are_told(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path, 2, 10, 10)
    write_image(tmp_path / f"large.{suffix}", 40, 40)
    monkeypatch.setattr("mae.data.reading.decode.MOST_PIXELS", 1000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    assert MOST_PIXELS > 1000
    assert found_in(tmp_path, tiny=4) == {f"large.{suffix}": "too large"}


def test_the_same_image_in_two_splits_is_told() -> None:
    splits = digits().own
    again = {"train": splits["test"], "test": splits["test"]}
    found = list(check_images(again, tiny=1))
    assert Counter(one.split for one in found if one.kind == "duplicate")["test"] == len(splits["test"])


@pytest.mark.parametrize("seed", range(6))
def test_exactly_those_that_a_run_cannot_read_are_counted(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    for number in range(12):
        path = write_image(tmp_path / f"{number}.{('jpg', 'png', 'webp', 'gif')[number % 4]}", 24, 24, seed=number)
        data = bytearray(path.read_bytes())
        for _ in range(rng.randrange(3)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data[: rng.choice([len(data), len(data), rng.randrange(len(data))])])
    source, unreadable = folder(str(tmp_path)).own["train"], set()
    for index in range(len(source)):
        try:
            source.image(index)
        except UnreadableImageError:
            unreadable.add(source.name(index))
    fatal = ("unreadable", "truncated", "too large")
    found = [one.name for one in check_images({"train": source}, tiny=1) if one.kind in fatal]
    assert sorted(found) == sorted(unreadable)


def test_shards_are_compared_with_their_manifest(tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    pack_folder(write_classes(tmp_path / "images"), packed, shard_images=3)
    assert list(check_shards(packed)) == []
    for number, damage in enumerate((lambda d: d[:-512], lambda d: d[:600] + b"?" + d[601:])):
        path = packed / f"train-00000{number}.tar"
        path.write_bytes(damage(path.read_bytes()))
    (packed / "train-000002.tar").unlink()
    found = list(check_shards(packed))
    assert [(one.kind, Path(one.name).name) for one in found] == [
        ("damaged shard", f"train-00000{number}.tar") for number in range(3)
    ]
    for one, reason in zip(
        found, ("by manifest.json", "other bytes than when it was packed", "is missing"), strict=True
    ):
        assert reason in one.detail


def test_the_list_is_a_table_that_others_read(tmp_path: Path) -> None:
    findings = [
        Finding("train", "a, b.png", "tiny", '8 x 8 "pixels"'),
        Finding("val", "c.png", "duplicate", "the same as x"),
    ]
    write_findings(findings, tmp_path / "lists" / "found.csv")
    with (tmp_path / "lists" / "found.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [["split", "name", "kind", "detail"], *map(list, findings)]
