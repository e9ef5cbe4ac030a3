"""A folder of tar shards as data."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mae.data.datamodule import ImageData
from mae.data.loading.batches import Batch
from mae.data.splits import Splits
from tests.data.tarring import numbered, open_shards, pack_folder, picture, write_classes, write_tar


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
