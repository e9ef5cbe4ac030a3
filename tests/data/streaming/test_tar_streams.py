"""Streams of tar shards: what is in them, and what is said where it is not."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from mae.data.inspection import inspect_images
from mae.data.open_splits import open_splits
from mae.data.reading.decode import UnreadableImageError
from mae.data.streaming.remote import UnreachableError
from mae.data.streaming.stream import Stream
from mae.data.streaming.tar_streams import TarShards
from tests.data.streaming.streamed import (
    build,
    epoch,
    number_of,
    numbers,
    options,
    png,
    write_manifest,
    write_shard,
    write_shards,
)

pytest.importorskip("webdataset")


def test_a_stream_of_tars_is_opened_with_validation_of_its_own(tmp_path: Path) -> None:
    splits = open_splits(**options(write_shards(tmp_path, 10), images=80, lanes=9))
    assert (len(splits.train), len(splits.val), splits.test) == (72, 8, None)
    assert splits.train.classes == splits.val.classes == ()
    held = {number_of(splits.val.image(index)) for index in range(8)}
    assert held == set(range(72, 80))
    assert isinstance(splits.train, Stream)
    assert sorted(numbers(epoch(build(splits.train)))) == list(range(72))
    look = inspect_images(splits.train)
    assert (look.count, look.channels, look.short_side, look.stream_shards) == (72, 3, 16, 9)


def test_validation_from_other_shards(tmp_path: Path) -> None:
    val = write_shards(tmp_path, 2, split="val", start=100)
    splits = open_splits(**options(write_shards(tmp_path, 4), images=32, val_root=val))
    assert len(splits.train) == 32
    assert [number_of(splits.val.image(index)) for index in range(16)] == list(range(100, 116))


def test_a_manifest_says_what_there_is(tmp_path: Path) -> None:
    pattern = write_shards(tmp_path, 4)
    write_shards(tmp_path, 1, split="val", start=100)
    write_manifest(tmp_path, train=8, val=8)
    for root in (pattern, tmp_path):
        splits = open_splits(**options(root, stream=True))
        assert (len(splits.train), len(splits.val)) == (32, 8)
        assert number_of(splits.val.image(0)) == 100
        assert splits.statistics == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.2))


def test_without_a_manifest_the_number_of_images_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"nothing says how many images the 4 shards of .*: data\.images=N does, or a man"
    ):
        open_splits(**options(write_shards(tmp_path, 4)))
    with pytest.raises(
        ValueError, match=r"manifest\.json names no shards for train: give theirs, as in \"data\.root='"
    ):
        open_splits(**options(tmp_path, stream=True))
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(ValueError, match="is no manifest of mae data pack"):
        open_splits(**options(tmp_path, stream=True))


def test_one_shard_leaves_none_for_validation(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"is the only shard, so none can be held out for validation: give data\.val_root"
    ):
        open_splits(**options(write_shard(tmp_path / "train.tar", range(8)), stream=True, images=8))


def test_what_counts_as_an_image_in_a_shard(tmp_path: Path) -> None:
    path = tmp_path / "odd.tar"
    names = ["a.png", "a.json", "a.seg.png", "b/c.PNG", "b/.hidden.png", "d.rgb.png", "readme.txt"]
    with tarfile.open(path, "w") as tar:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = len(png(1))
            tar.addfile(entry, io.BytesIO(png(1)))
    found = [image.name for image in TarShards([str(path)]).read(0)]
    assert found == ["odd.tar/a.png", "odd.tar/b/c.PNG", "odd.tar/d.rgb.png"]


def test_a_shard_that_is_cut_off_gives_what_came_before(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "train.tar", range(8))
    data = path.read_bytes()
    whole = [image.data for image in TarShards([str(path)]).read(0)]
    # Within an image, between two members, within a header, and before the end mark.
    for at in (1100, 2048, 2048 + 100, 8 * 2048):
        path.write_bytes(data[:at])
        found: list[bytes] = []
        with pytest.raises(
            UnreadableImageError, match=r"train\.tar is damaged or cut off \(.*\): the rest of it is left out"
        ):
            for image in TarShards([str(path)]).read(0):
                found.append(image.data)
        assert found == whole[: len(found)]
        assert len(found) >= (at - 600) // 2048


def test_what_is_no_tar_is_named(tmp_path: Path) -> None:
    (tmp_path / "page.tar").write_text("<html>not found</html>" * 100)
    with pytest.raises(UnreadableImageError, match=r"page\.tar is damaged or cut off"):
        list(TarShards([str(tmp_path / "page.tar")]).read(0))


def test_a_shard_that_goes_away_is_named_from_a_worker(tmp_path: Path) -> None:
    splits = open_splits(**options(write_shards(tmp_path, 5), images=40))
    assert isinstance(splits.train, Stream)
    (tmp_path / "train-002.tar").unlink()
    with pytest.raises(UnreachableError, match=r"train-002\.tar does not exist"):
        epoch(build(splits.train, num_workers=2))
