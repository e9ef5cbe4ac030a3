"""Data sets known by name, read from tiny files in their original formats."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torchvision import datasets

from mae.data.open_splits import open_splits
from mae.data.sources.bundled import TORCHVISION, digits, torchvision_dataset, torchvision_source


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write the format of MNIST and its kin: a magic number, the sizes, the bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


@pytest.fixture
def fashion(tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """Write a FashionMNIST of 30 training and 10 test images."""
    rng, content = np.random.default_rng(0), {}
    for prefix, count in (("train", 30), ("t10k", 10)):
        content[f"{prefix}-images-idx3-ubyte"] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        content[f"{prefix}-labels-idx1-ubyte"] = np.arange(count, dtype=np.uint8) % 10
    for name, array in content.items():
        write_idx(tmp_path / "FashionMNIST" / "raw" / name, array)
    return tmp_path, content


def test_digits_are_scikit_learns_in_three_parts_that_share_none() -> None:
    splits = digits()
    parts = [splits.train, splits.val, splits.test]
    assert sum(len(part) for part in parts) == 1797
    assert len(splits.test) == 360
    everything = load_digits()
    # Some of the digits occur twice in the original, so images are compared as a multiset.
    expected = sorted(
        (*image.ravel().astype(int), label) for image, label in zip(everything.images, everything.target, strict=True)
    )
    found = sorted(
        (*(part.image(i).ravel() / (255 / 16)).round().int().tolist(), int(part.labels[i]))
        for part in parts
        for i in range(len(part))
    )
    assert found == expected


def test_digits_use_the_whole_range_of_a_byte() -> None:
    image = torch.stack([digits().train.image(i) for i in range(50)])
    assert image.dtype == torch.uint8
    assert image.shape == (50, 1, 8, 8)
    assert (int(image.min()), int(image.max())) == (0, 255)


def test_fashion_mnist_is_read_from_its_original_files(fashion: tuple[Path, dict[str, np.ndarray]]) -> None:
    root, content = fashion
    splits = open_splits("torchvision", name="fashion_mnist", root=str(root))
    assert (len(splits.train), len(splits.val), len(splits.test)) == (27, 3, 10)
    for i in range(10):
        assert np.array_equal(splits.test.image(i)[0].numpy(), content["t10k-images-idx3-ubyte"][i])
    assert splits.test.labels.tolist() == list(range(10))
    assert splits.train.classes[0] == "T-shirt/top"
    assert splits.train.size(0) == (28, 28)
    seen = {splits.train.image(i).numpy().tobytes() for i in range(27)} | {
        splits.val.image(i).numpy().tobytes() for i in range(3)
    }
    assert seen == {image.tobytes() for image in content["train-images-idx3-ubyte"]}


def test_cifar10_is_read_from_its_original_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Only the checksums of the download stand between torchvision and files of this size.
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *arguments: True)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.default_rng(0)
    batches = {f"data_batch_{i}": rng.integers(0, 256, (4, 3072), dtype=np.uint8) for i in range(1, 6)}
    batches["test_batch"] = rng.integers(0, 256, (6, 3072), dtype=np.uint8)
    for name, data in batches.items():
        (folder / name).write_bytes(pickle.dumps({"data": data, "labels": [i % 10 for i in range(len(data))]}))
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))
    splits = torchvision_dataset("cifar10", str(tmp_path), download=False)
    assert (len(splits.train), len(splits.val), len(splits.test)) == (18, 2, 6)
    for i in range(6):
        assert np.array_equal(splits.test.image(i).numpy(), batches["test_batch"][i].reshape(3, 32, 32))
    assert splits.train.classes == tuple(names)


class Stub:
    """A data set as torchvision gives them, with what the test wants of it."""

    def __init__(self, images: list[object], **attributes: object) -> None:
        self.images = images
        self.__dict__.update(attributes)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[object, int]:
        return self.images[index], 0


def test_labels_of_minus_one_are_no_labels() -> None:
    # STL-10's unlabelled part marks its images so; as a class they would be an eleventh.
    source = torchvision_source(Stub([None] * 3, labels=np.array([-1, -1, -1]), classes=["a"]))
    assert source.labels is None
    assert source.classes == ()


def test_classes_without_names_are_numbered() -> None:
    source = torchvision_source(Stub([None] * 3, targets=[0, 2, 1]))
    assert source.classes == ("0", "1", "2")


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "stl10"])
def test_missing_files_name_the_option_that_fetches_them(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} is not complete in data\.root=.*data\.download=true fetches it"):
        torchvision_dataset(name, str(tmp_path), download=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "nearest"), [("fashion-mnist", "fashion_mnist"), ("cifar1O", "cifar10"), ("food", "food101")]
)
def test_an_unknown_name_suggests_the_nearest(tmp_path: Path, name: str, nearest: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}'.*did you mean {nearest}"):
        torchvision_dataset(name, str(tmp_path), download=False)


@pytest.mark.parametrize("name", ["imagenet22k", None])
def test_a_name_like_no_other_lists_them_all(tmp_path: Path, name: str | None) -> None:
    with pytest.raises(ValueError, match="choose one of") as raised:
        torchvision_dataset(name, str(tmp_path), download=False)
    assert all(known in str(raised.value) for known in TORCHVISION)


def test_a_data_set_without_a_root_is_asked_for_one() -> None:
    with pytest.raises(ValueError, match=r"data\.root=DIR"):
        torchvision_dataset("mnist", None, download=False)
