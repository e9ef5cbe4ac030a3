"""Images in tar shards, read at random."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from mae.data.reading.decode import UnreadableImageError
from mae.data.shards.shard_source import OPEN_FILES, ShardFiles, ShardSource
from tests.data.tarring import array, open_shards, write_tar


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
