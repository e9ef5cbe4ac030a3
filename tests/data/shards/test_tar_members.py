"""Members of tar shards that are images, and their labels."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from mae.data.shards.tar_members import read_members
from tests.data.tarring import array, open_shards, picture, write_tar


def test_offsets_are_those_that_tar_gives(shards: Path) -> None:
    path = shards / "set-train-000.tar"
    content = path.read_bytes()
    with tarfile.open(path) as tar:
        for member in read_members(path):
            extracted = tar.extractfile(member.name)
            assert extracted is not None
            assert content[member.offset : member.offset + member.size] == extracted.read()


def test_labels_may_stand_in_json_and_files_in_folders(tmp_path: Path) -> None:
    members = {}
    for number in range(3):
        members[f"b/{number}.jpg"] = picture(number, "jpg")
        members[f"b/{number}.json"] = json.dumps({"label": number, "caption": "a bee"}).encode()
    members["a/0.jpg"] = picture(3, "jpg")
    members["a/0.json"] = b'{"label": 1}'
    write_tar(tmp_path / "train-0.tar", members)
    write_tar(tmp_path / "val-0.tar", {"0.jpg": picture(9, "jpg"), "0.cls": b"4\n"})
    splits = open_shards(tmp_path)
    assert splits.train.labels is not None
    assert splits.train.labels.tolist() == [0, 1, 2, 1]
    assert splits.train.classes == tuple("01234")


def test_captions_are_no_labels_and_masks_and_embeddings_no_images(tmp_path: Path) -> None:
    members = {}
    for number in range(4):
        members[f"{number}.png"] = picture(number)
        members[f"{number}.seg.png"] = picture(50)
        members[f"{number}.npy"] = array(np.zeros(512, np.float32))
        members[f"{number}.json"] = b'{"caption": "a bee"}'
        members[f"._{number}.png"] = b"what macOS puts beside a file"
    write_tar(tmp_path / "0.tar", members)
    splits = open_shards(tmp_path)
    assert len(splits.own["train"]) == 4
    assert splits.train.labels is None


def test_names_with_dots_are_all_seen(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {f"IMG.2024.{number}.JPG": picture(number, "jpg") for number in range(5)})
    assert len(open_shards(tmp_path).own["train"]) == 5


@pytest.mark.parametrize("kept", [100, 700, 3000, -1100, -20])
def test_a_shard_that_is_cut_off_is_named(shards: Path, kept: int) -> None:
    path = shards / "set-train-000.tar"
    # The last 20 bytes are part of the padding that tar puts at its end: nothing is lost without them.
    os.truncate(path, kept if kept > 0 else _end(path) + 1044 + kept)
    if kept == -20:
        assert len(open_shards(shards).train) == 12
        return
    with pytest.raises(
        ValueError, match=f"the shard {path} is cut off, damaged or no tar .*: copy it again, or pack it"
    ):
        open_shards(shards)


def _end(path: Path) -> int:
    """Return where the last member's blocks end."""
    *_, last = read_members(path)
    return last.offset + -(-last.size // 512) * 512


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"0.png": picture(), "1.png": picture(1), "1.cls": b"1"}, "1 of 2 images .* have no label, .*0.tar/0.png"),
        ({"0.png": picture(), "0.cls": b"cat"}, "0.tar/0.cls holds b'cat', no class"),
        ({"0.png": picture(), "0.json": b"{"}, "0.tar/0.json is no JSON"),
        ({"0.txt": b"x", "0.cls": b"1"}, "none of the 1 tars in .* holds an image: members are known by their names"),
        ({}, "none of the 1 tars in .* holds an image"),
    ],
)
def test_members_that_make_no_data_are_named(tmp_path: Path, members: dict[str, bytes], message: str) -> None:
    write_tar(tmp_path / "0.tar", members)
    with pytest.raises(ValueError, match=message):
        open_shards(tmp_path)
