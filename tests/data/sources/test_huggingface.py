"""Data sets in the formats of the Hugging Face hub, from files that the tests write."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mae.data.inspection import inspect_images
from mae.data.open_splits import open_splits
from mae.data.reading.decode import UnreadableImageError
from mae.data.streaming.stream import Stream
from tests.data.drawing import write_image
from tests.data.streaming.streamed import BARE, build, epoch, number_of, numbers, png
from tests.runs import job

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def options(root: Path | str, **changes: Any) -> dict[str, Any]:
    columns = {"config": None, "image_column": None, "label_column": None}
    plain = {"stream": False, "images": None, "buffer": 1000, "lanes": None, "val_root": None}
    return {"source": "huggingface", "root": str(root), **columns, **plain, **changes}


def write_parquet(path: Path, images: range, labels: Callable[[int], Any] | None = None, kind: Any = None) -> Path:
    """Write images, and labels of a feature type where they are wanted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows: dict[str, Any] = {"picture": [{"bytes": png(number), "path": None} for number in images]}
    features: dict[str, Any] = {"picture": datasets.Image()}
    if labels is not None:
        rows["label"] = [labels(number) for number in images]
        features["label"] = kind or datasets.ClassLabel(names=["ant", "bee"])
    datasets.Dataset.from_dict(rows, features=datasets.Features(features)).to_parquet(str(path))
    return path


def write_splits(root: Path, labels: Callable[[int], Any] | None = None, **splits: int) -> Path:
    """Write a parquet file for each split, named as on the hub."""
    start = 0
    for split, count in splits.items():
        write_parquet(root / f"{split}-00000-of-00001.parquet", range(start, start + count), labels)
        start += count
    return root


def test_splits_labels_and_images_are_those_of_the_files(tmp_path: Path) -> None:
    root = write_splits(tmp_path / "data", lambda number: number % 2, train=20, validation=6, test=4)
    splits = open_splits(**options(root))
    assert splits.test is not None
    assert [len(part) for part in splits.parts] == [20, 6, 4]
    assert splits.train.classes == splits.test.classes == ("ant", "bee")
    assert splits.train.labels is not None
    assert splits.train.labels.dtype == np.int64
    assert splits.train.labels.tolist() == [0, 1] * 10
    assert [number_of(splits.val.image(index)) for index in range(6)] == list(range(20, 26))
    assert splits.val.size(0) == (16, 16)
    assert inspect_images(splits.train).channels == 3


def test_without_a_validation_split_images_are_held_out(tmp_path: Path) -> None:
    splits = open_splits(**options(write_splits(tmp_path / "data", lambda number: number % 2, train=20)))
    assert (len(splits.train), len(splits.val), splits.test) == (18, 2, None)


def test_validation_may_lie_elsewhere(tmp_path: Path) -> None:
    root = write_splits(tmp_path / "data", train=20)
    val = write_parquet(tmp_path / "other.parquet", range(100, 104))
    splits = open_splits(**options(root, val_root=str(val)))
    assert (len(splits.train), len(splits.val)) == (20, 4)
    assert number_of(splits.val.image(0)) == 100
    assert splits.train.labels is None


def test_files_by_a_pattern(tmp_path: Path) -> None:
    for number in range(3):
        write_parquet(tmp_path / f"part-{number}.parquet", range(5 * number, 5 * number + 5))
    splits = open_splits(**options(tmp_path / "part-*.parquet"))
    shown = [number_of(part.image(index)) for part in splits.parts for index in range(len(part))]
    assert sorted(shown) == list(range(15))


def test_a_folder_of_images(tmp_path: Path) -> None:
    for number in range(12):
        kind = "ant" if number % 3 else "bee"
        write_image(tmp_path / "data" / "train" / kind / f"{number:02}.png", 18, 20, seed=number)
    splits = open_splits(**options(tmp_path / "data"))
    assert splits.train.classes == ("ant", "bee")
    assert sorted(np.concatenate([splits.train.labels, splits.val.labels]).tolist()) == [0] * 8 + [1] * 4  # type: ignore[list-item]
    assert splits.train.size(0) == (18, 20)


def test_labels_cost_no_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_splits(tmp_path / "data", lambda number: number % 2, train=20)
    monkeypatch.setattr(datasets.Image, "decode_example", lambda *args, **more: pytest.fail("an image is decoded"))
    splits = open_splits(**options(root))
    assert number_of(splits.train.image(0)) < 20  # by our own decoder


@pytest.mark.parametrize(
    ("kind", "labels", "classes", "first"),
    [
        (datasets.Value("int32"), lambda number: number % 3, ("0", "1", "2"), [0, 1, 2]),
        (datasets.Value("int64"), lambda number: 10 * (number % 2) + 7, ("7", "17"), [0, 1, 0]),
    ],
)
def test_numbers_called_label_are_classes(
    tmp_path: Path, kind: Any, labels: Callable[[int], Any], classes: tuple[str, ...], first: list[int]
) -> None:
    for name, images in (("train", range(12)), ("test", range(12, 18))):
        write_parquet(tmp_path / "data" / f"{name}.parquet", images, labels, kind)
    splits = open_splits(**options(tmp_path / "data"))
    assert splits.train.classes == classes
    assert splits.test is not None
    assert splits.test.labels is not None
    assert splits.test.labels.tolist()[:3] == first


def test_words_are_classes_where_they_are_asked_for(tmp_path: Path) -> None:
    path = write_parquet(
        tmp_path / "a.parquet", range(12), lambda number: ("oak", "elm")[number % 2], datasets.Value("string")
    )
    assert open_splits(**options(path)).train.labels is None
    assert open_splits(**options(path, label_column="label")).train.classes == ("elm", "oak")


def test_a_test_split_without_labels_is_left_out(tmp_path: Path) -> None:
    # The hub's ImageNet marks the labels that are not given away by -1.
    write_parquet(tmp_path / "data" / "train.parquet", range(12), lambda number: number % 2)
    write_parquet(tmp_path / "data" / "test.parquet", range(12), lambda number: -1)
    splits = open_splits(**options(tmp_path / "data"))
    assert splits.test is None
    assert splits.train.classes == ("ant", "bee")


def test_an_empty_row_is_an_unreadable_image(tmp_path: Path) -> None:
    rows = {"image": [{"bytes": png(1), "path": None}, None, {"bytes": b"no image", "path": None}] * 3}
    features = datasets.Features({"image": datasets.Image()})
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "a.parquet"))
    splits = open_splits(**options(tmp_path / "a.parquet", val_root=str(tmp_path / "a.parquet")))
    with pytest.raises(UnreadableImageError, match=r"a\.parquet train image 1 is empty"):
        splits.train.open(1)
    with pytest.raises(UnreadableImageError, match=r"a\.parquet train image 2 cannot be read as an image"):
        splits.train.open(2)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            datasets.exceptions.DatasetNotFoundError(
                "Dataset 'x/y' doesn't exist on the Hub or cannot be accessed.\nmore"
            ),
            "data.root=x/y is neither here nor on the hub (Dataset 'x/y' doesn't exist on the Hub or cannot be accessed.): check "
            "the name; private and gated data sets need hf auth login",
        ),
        (
            ConnectionError("Couldn't reach 'x/y' on the Hub"),
            "data.root=x/y cannot be looked up, the hub is not reachable (Couldn't reach 'x/y' on the Hub): check the connection, "
            "or give local files",
        ),
        (
            ValueError("Config name is missing.\nPlease pick one among the available configs: ['a', 'b']"),
            "data.root=x/y cannot be opened: Config name is missing. Please pick one among the available configs: ['a', 'b']; "
            "data.config chooses one",
        ),
    ],
)
def test_what_the_hub_does_not_give(monkeypatch: pytest.MonkeyPatch, error: Exception, message: str) -> None:
    def fail(**arguments: Any) -> None:
        assert arguments == {"path": "x/y", "name": None, "streaming": False}
        raise error

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(ValueError, match=r"data\.root=x/y") as raised:
        open_splits(**options("x/y"))
    assert str(raised.value) == message


@pytest.mark.parametrize("root", ["/no/such", "./no_such", "~/no_such", "no_such.parquet", "no_such/*.parquet"])
def test_a_path_that_does_not_exist(root: str) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        open_splits(**options(root))


def test_splits_of_which_none_is_for_training(tmp_path: Path) -> None:
    root = write_splits(tmp_path / "data", validation=4, test=4)
    with pytest.raises(ValueError, match="has the splits validation, test, and none is called train"):
        open_splits(**options(root))


@pytest.mark.parametrize("stream", [False, True])
def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, stream: bool) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        ImportError, match="data=huggingface needs the extra 'huggingface', which is not installed: pip"
    ):
        open_splits(**options("x/y", stream=stream))


def write_stream(root: Path, files: int, images: int = 8) -> Path:
    for number in range(files):
        path = root / f"train-{number:05}-of-{files:05}.parquet"
        write_parquet(path, range(number * images, (number + 1) * images))
    return root


def test_a_stream_holds_each_image_once_whatever_the_workers(tmp_path: Path) -> None:
    # Where a worker iterates over a stream, datasets deals its rows out among the workers; readers have done so before.
    root, val = write_stream(tmp_path / "data", 4), write_stream(tmp_path / "val", 1)
    splits = open_splits(**options(root, stream=True, images=32, val_root=str(val)))
    assert isinstance(splits.train, Stream)
    assert (len(splits.train), len(splits.val), splits.train.classes) == (32, 8, ())
    seen = numbers(epoch(build(splits.train, num_workers=2)))
    assert sorted(seen) == list(range(32))
    assert seen == numbers(epoch(build(splits.train)))


def test_a_resumed_stream_goes_on_with_the_next_batch(tmp_path: Path) -> None:
    root, val = write_stream(tmp_path / "data", 4), write_stream(tmp_path / "val", 1)
    source = open_splits(**options(root, stream=True, images=32, val_root=str(val))).train
    assert isinstance(source, Stream)
    whole = epoch(build(source), 1)
    loader = build(source).train_dataloader()
    loader.load_state_dict({"batches": 3})
    rest = epoch(build(source), 1, loader)
    assert all(torch.equal(a.images, b.images) for a, b in zip(whole[3:], rest, strict=True))


def test_a_stream_of_a_split_of_its_own_for_validation(tmp_path: Path) -> None:
    write_stream(tmp_path / "data", 2)
    write_parquet(tmp_path / "data" / "validation-00000-of-00001.parquet", range(100, 105))
    splits = open_splits(**options(tmp_path / "data", stream=True, images=16))
    assert [number_of(splits.val.image(index)) for index in range(5)] == list(range(100, 105))


def test_an_empty_row_of_a_stream_is_named(tmp_path: Path) -> None:
    rows = {"image": [{"bytes": png(1), "path": None}, None] * 4}
    for number in range(2):
        path = tmp_path / "data" / f"train-{number}.parquet"
        path.parent.mkdir(exist_ok=True)
        datasets.Dataset.from_dict(rows, features=datasets.Features({"image": datasets.Image()})).to_parquet(str(path))
    splits = open_splits(**options(tmp_path / "data", stream=True, images=16))
    assert isinstance(splits.train, Stream)
    with pytest.warns(UserWarning, match="train file 0 image . cannot be read as an image"):
        assert numbers(epoch(build(splits.train))) == [1] * 8


@pytest.mark.slow
def test_a_whole_run_from_a_stream(tmp_path: Path) -> None:
    root = write_stream(tmp_path / "data", 6)
    given = ("data=huggingface", f"data.root={root}", "data.stream=true", "data.images=48", "data.num_workers=2")
    results = job("pretrain", tmp_path / "run", *BARE, *given).run()
    assert results["steps"] == 5
    assert np.isfinite(results["val_loss"])


def test_a_run_is_prepared_with_labels(tmp_path: Path) -> None:
    root = write_splits(tmp_path / "data", lambda number: number % 2, train=40, test=10)
    prepared = job("pretrain", None, "data=huggingface", f"data.root={root}", "data.num_workers=0")
    assert prepared.data.splits.train.classes == ("ant", "bee")
    assert prepared.setting.config.data.image_size == 16


def test_the_second_stage_refuses_a_stream() -> None:
    with pytest.raises(ValueError, match=r"give data\.root=DIR without data\.stream"):
        job("finetune", None, "checkpoint=null", "data=huggingface", "data.root=x/y", "data.stream=true")
