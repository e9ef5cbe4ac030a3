"""Tar shards in the WebDataset convention, read at random."""

from __future__ import annotations

import json
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from mae.data.datamodule import ImageData
from mae.data.loading.batches import Batch
from mae.data.reading.decode import UnreadableImageError
from mae.data.shards.shard_source import OPEN_FILES, ShardFiles, ShardSource
from mae.data.shards.tar_members import read_members
from mae.data.splits import Splits
from tests.data.tarring import array, numbered, open_shards, pack_folder, picture, write_classes, write_tar


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    write_tar(tmp_path / "set-train-000.tar", numbered(0, 8))
    write_tar(tmp_path / "set-train-001.tar", numbered(8, 4))
    write_tar(tmp_path / "set-validation-000.tar", numbered(12, 3))
    return tmp_path


def data(splits: Splits, **options: int) -> ImageData:
    values = {"effective_batch": 4, "micro_batch": 4, "num_workers": 0, **options}
    return ImageData(splits, image_size=(16, 16), channels=3, min_scale=0.5, flip=True, seed=0, **values)


def test_images_labels_and_names_are_those_of_the_members(shards: Path) -> None:
    splits = open_shards(shards)
    assert (len(splits.train), len(splits.val), splits.test) == (12, 3, None)
    assert splits.train.classes == ("0", "1", "2")
    assert splits.train.labels is not None
    assert splits.train.labels.tolist() == [number % 3 for number in range(12)]
    assert splits.train.name(9) == f"{shards}/set-train-001.tar/00009.png"
    for number in (11, 0, 7, 8):
        assert splits.train.open(number).data == picture(number)  # type: ignore[attr-defined]
    assert splits.train.size(3) == (16, 16)


def test_offsets_are_those_that_tar_gives(shards: Path) -> None:
    path = shards / "set-train-000.tar"
    content = path.read_bytes()
    with tarfile.open(path) as tar:
        for member in read_members(path):
            extracted = tar.extractfile(member.name)
            assert extracted is not None
            assert content[member.offset : member.offset + member.size] == extracted.read()


def batches(loader: object) -> list[Batch]:
    return list(loader)  # type: ignore[call-overload]


def test_workers_give_the_same_batches(shards: Path) -> None:
    alone = batches(data(open_shards(shards)).train_dataloader())
    helped = batches(data(open_shards(shards), num_workers=2).train_dataloader())
    assert len(alone) == len(helped) == 3
    for one, other in zip(alone, helped, strict=True):
        assert all(torch.equal(one[field], other[field]) for field in range(3))


def test_two_ranks_share_an_epoch(shards: Path) -> None:
    seen = []
    for rank in range(2):
        module = data(open_shards(shards), effective_batch=4, micro_batch=2)
        module._rank = lambda rank=rank: (rank, 2)  # type: ignore[method-assign,misc]
        seen.append({int(index) for batch in batches(module.train_dataloader()) for index in batch.indices})
    assert seen[0].isdisjoint(seen[1])
    assert seen[0] | seen[1] == set(range(12))


def test_tars_of_any_name_are_training_data(tmp_path: Path) -> None:
    write_tar(tmp_path / "00000.tar", numbered(0, 12, labelled=False))
    splits = open_shards(tmp_path)
    assert (len(splits.train), len(splits.val)) == (11, 1)
    assert splits.train.labels is None
    assert "held out" in splits.origin


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


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.arange(5 * 8 * 8, dtype=np.uint8).reshape(5, 8, 8), lambda v: v),
        (np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000, lambda v: (v.astype(np.float32) / 65535)[None]),
        (np.linspace(-3, 3, 2 * 64, dtype=np.float64).reshape(2, 8, 8), lambda v: v.astype(np.float32)),
        (np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3), lambda v: v.transpose(2, 0, 1)),
    ],
)
def test_arrays_are_images(tmp_path: Path, values: np.ndarray, expected: object) -> None:
    write_tar(tmp_path / "0.tar", {"0.npy": array(values), "1.npy": array(values)})
    image = open_shards(tmp_path).train.image(0)
    assert np.array_equal(image.numpy(), expected(values))  # type: ignore[operator]


def test_an_array_that_is_no_image_is_unreadable(tmp_path: Path) -> None:
    write_tar(
        tmp_path / "0.tar",
        {"0.npy": array(np.zeros(7)), "1.npy": b"\x93NUMPY no more", "2.npy": array(np.ones((4, 4)))},
    )
    source = open_shards(tmp_path).own["train"]
    with pytest.raises(UnreadableImageError, match=r"is an array \(7,\) of float64: an image is"):
        source.open(0)
    with pytest.raises(UnreadableImageError, match=r"1\.npy cannot be read"):
        source.open(1)
    assert source.image(2).shape == (1, 4, 4)


def test_a_source_travels_to_other_processes_without_its_descriptors(shards: Path) -> None:
    source = open_shards(shards).train
    before = source.image(0)
    copy = pickle.loads(pickle.dumps(source))
    assert isinstance(copy, ShardSource)
    assert copy.files._open == {}
    assert torch.equal(copy.image(0), before)


def test_few_files_are_open_at_a_time(tmp_path: Path) -> None:
    paths = [tmp_path / str(number) for number in range(OPEN_FILES + 5)]
    for number, path in enumerate(paths):
        path.write_bytes(b"%03d" % number)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    files = ShardFiles(paths)
    for _ in range(2):
        assert [int(files.read(number, 0, 3)) for number in range(len(paths))] == list(range(len(paths)))
    assert len(files._open) == OPEN_FILES
    del files
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_a_shard_that_shrinks_under_a_run_is_unreadable(shards: Path) -> None:
    source = open_shards(shards).train
    os.truncate(shards / "set-train-001.tar", 1000)
    with pytest.raises(UnreadableImageError, match=r"00011\.png cannot be read \(the shard .* is cut off\)"):
        source.open(11)


def test_a_run_keeps_its_index_and_refuses_other_shards(shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    splits = open_shards(shards, run)
    assert not run.exists(), "nothing is written before the run begins"
    assert splits.keep is not None
    splits.keep()
    assert len(open_shards(shards, run).train) == 12
    write_tar(shards / "set-train-001.tar", numbered(8, 40))
    with pytest.raises(ValueError, match=r"the train shards of .* are not those that the run began with"):
        open_shards(shards, run)


def test_the_packed_index_saves_the_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack_folder(write_classes(tmp_path / "images"), tmp_path / "packed")
    scanned = open_shards(tmp_path / "packed").train.labels
    monkeypatch.setattr(
        "mae.data.shards.shard_folder.index_shards", lambda paths: pytest.fail("the shards were scanned")
    )
    packed = open_shards(tmp_path / "packed").train.labels
    assert scanned is not None
    assert packed is not None
    assert scanned.tolist() == packed.tolist()


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


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], r"holds no \.tar: mae data pack SRC DST writes shards"),
        (["a.tar.gz"], r"a\.tar\.gz is compressed, and has to be unpacked"),
        (["train-0.tar", "rest.tar"], r"rest\.tar belongs to no split: name it train-"),
        (["val-0.tar", "test-0.tar"], "has shards for test and val and none for training"),
    ],
)
def test_folders_without_training_shards_are_refused(tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        write_tar(tmp_path / name, numbered(0, 2))
    with pytest.raises(ValueError, match=message):
        open_shards(tmp_path)


def test_labels_of_one_split_alone_are_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "train-0.tar", numbered(0, 3))
    write_tar(tmp_path / "val-0.tar", numbered(3, 3, labelled=False))
    with pytest.raises(ValueError, match=r"the val shards of .* have no labels, and those for training have"):
        open_shards(tmp_path)


def break_manifest(root: Path, **changes: object) -> None:
    content = json.loads((root / "manifest.json").read_text())
    train = content["splits"]["train"]
    for key, value in changes.items():
        if key in train["shards"][0]:
            train["shards"][0][key] = value
        else:
            (train if key in train else content)[key] = value
    (root / "manifest.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"name": "train-000009.tar"},
            r"train-000009\.tar is missing, which manifest\.json names: copy it again, or pack",
        ),
        ({"bytes": 7}, r"has [\d,]+ bytes, and 7 by manifest\.json: copy it again, or pack again"),
        ({"images": 5}, None),
        ({"classes": ["ant"]}, "images of class 1, and manifest.json names 1 classes: pack again"),
        ({"format": 2}, "its format is 2, and 1 is read here"),
        ({"splits": 3}, "is no manifest of mae data pack"),
    ],
)
def test_a_manifest_that_disagrees_is_said(tmp_path: Path, changes: dict[str, object], message: str | None) -> None:
    pack_folder(write_classes(tmp_path / "images"), tmp_path / "packed")
    if message is None:  # the number of images of the split
        content = json.loads((tmp_path / "packed" / "manifest.json").read_text())
        content["splits"]["train"]["images"] = 5
        (tmp_path / "packed" / "manifest.json").write_text(json.dumps(content))
        message = "hold 12 images, and 5 by manifest.json: pack again"
    else:
        break_manifest(tmp_path / "packed", **changes)
    with pytest.raises(ValueError, match=message):
        open_shards(tmp_path / "packed")


def test_a_shard_that_the_manifest_does_not_know_is_refused(tmp_path: Path) -> None:
    pack_folder(write_classes(tmp_path / "images"), tmp_path / "packed")
    write_tar(tmp_path / "packed" / "train-000001.tar", numbered(0, 2))
    with pytest.raises(ValueError, match=r"train-000001\.tar is not in .*manifest\.json: move it away"):
        open_shards(tmp_path / "packed")
