"""Data sets that libraries bring: scikit-learn's digits and torchvision's own."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torchvision import datasets
from torchvision.transforms.v2 import functional as TF

from mae.data.reading.decode import Picture, TensorPicture, filled_picture
from mae.data.reading.missing import missing_in_picture
from mae.data.source import Source, Subset
from mae.data.splits import Splits, hold_out, with_validation


class TensorSource(Source):
    """Images that lie in memory: (N, C, H, W), uint8 or float32."""

    in_memory = True

    def __init__(self, images: Tensor, labels: np.ndarray | None, classes: tuple[str, ...]) -> None:
        self.images = images
        self.labels = labels
        self.classes = classes

    def __len__(self) -> int:
        return len(self.images)

    def open(self, index: int) -> Picture:
        """Open an image."""
        return TensorPicture(self.images[index])

    def name(self, index: int) -> str:
        """Return the number."""
        return f"image {index}"


def digits() -> Splits:
    """scikit-learn's 1,797 real handwritten digits, 8x8: offline, and ready at once. A fifth of them is the test split."""
    bunch = load_digits()
    images = torch.from_numpy((bunch.images * (255 / 16)).round().astype(np.uint8)).unsqueeze(1)
    everything = TensorSource(images, bunch.target.astype(np.int64), tuple("0123456789"))
    rest, test = hold_out(everything, 360)
    return with_validation(Subset(everything, rest), None, Subset(everything, test))


class TorchvisionSource(Source):
    """A torchvision data set that gives (PIL image, class) pairs."""

    def __init__(self, dataset: Any, labels: np.ndarray | None, classes: tuple[str, ...]) -> None:
        self.dataset = dataset
        self.labels = labels
        self.classes = classes

    def __len__(self) -> int:
        return len(self.dataset)

    def open(self, index: int) -> Picture:
        """Open an image, which decodes it."""
        picture = self.dataset[index][0]
        found = missing_in_picture(picture)
        if picture.mode not in ("L", "RGB"):
            picture = picture.convert("RGB")
        pixels = TF.pil_to_tensor(picture)
        if found is None:
            return TensorPicture(pixels)
        missing = torch.from_numpy(found)
        return TensorPicture(filled_picture(pixels, missing, self.name(index)), missing)

    def name(self, index: int) -> str:
        """Return the number."""
        return f"image {index}"


def torchvision_source(dataset: Any) -> Source:
    """Return a torchvision data set as a source; where it keeps all its pixels in memory, without the way through PIL."""
    labels = next((getattr(dataset, name) for name in ("targets", "labels", "_labels") if hasattr(dataset, name)), None)
    numbers = None if labels is None else np.asarray(labels, dtype=np.int64).reshape(-1)
    if numbers is None or (numbers < 0).any():  # STL-10 marks what has no label by -1
        return _pixels(dataset, None, ())
    names = getattr(dataset, "classes", None)
    if not names or len(names) <= numbers.max():
        names = range(int(numbers.max()) + 1)
    return _pixels(dataset, numbers, tuple(str(name) for name in names))


def _pixels(dataset: Any, labels: np.ndarray | None, classes: tuple[str, ...]) -> Source:
    pixels = getattr(dataset, "data", None)
    if not isinstance(pixels, np.ndarray | Tensor):
        return TorchvisionSource(dataset, labels, classes)
    images = torch.as_tensor(pixels)
    if images.ndim == 3:  # (N, H, W), as the MNIST family
        images = images.unsqueeze(1)
    elif images.shape[-1] == 3:  # (N, H, W, C), as CIFAR; SVHN and STL-10 are (N, C, H, W)
        images = images.permute(0, 3, 1, 2)
    return TensorSource(images, labels, classes)


Arguments = dict[str, Any]
TRAIN_TEST: tuple[Arguments, Arguments | None, Arguments | None] = ({"train": True}, None, {"train": False})
SPLIT_TRAIN_TEST: tuple[Arguments, Arguments | None, Arguments | None] = ({"split": "train"}, None, {"split": "test"})
SPLIT_ALL: tuple[Arguments, Arguments | None, Arguments | None] = (
    {"split": "train"},
    {"split": "val"},
    {"split": "test"},
)

TORCHVISION: dict[str, tuple[Callable[..., Any], tuple[Arguments, Arguments | None, Arguments | None]]] = {
    "mnist": (datasets.MNIST, TRAIN_TEST),
    "fashion_mnist": (datasets.FashionMNIST, TRAIN_TEST),
    "kmnist": (datasets.KMNIST, TRAIN_TEST),
    "qmnist": (datasets.QMNIST, TRAIN_TEST),
    "cifar10": (datasets.CIFAR10, TRAIN_TEST),
    "cifar100": (datasets.CIFAR100, TRAIN_TEST),
    "svhn": (datasets.SVHN, SPLIT_TRAIN_TEST),
    "stl10": (datasets.STL10, SPLIT_TRAIN_TEST),
    "stl10_unlabeled": (datasets.STL10, ({"split": "unlabeled"}, None, None)),
    "gtsrb": (datasets.GTSRB, SPLIT_TRAIN_TEST),
    "food101": (datasets.Food101, SPLIT_TRAIN_TEST),
    "dtd": (datasets.DTD, SPLIT_ALL),
    "flowers102": (datasets.Flowers102, SPLIT_ALL),
    "fgvc_aircraft": (datasets.FGVCAircraft, SPLIT_ALL),
    "pcam": (datasets.PCAM, SPLIT_ALL),
    "oxford_iiit_pet": (datasets.OxfordIIITPet, ({"split": "trainval"}, None, {"split": "test"})),
    "eurosat": (datasets.EuroSAT, ({}, None, None)),
}
"""By name: the class, and the arguments of its training, validation and test splits."""


def torchvision_dataset(name: str | None = None, root: str | None = None, download: bool = False) -> Splits:
    """One of torchvision's data sets, with its own splits.

    Args:
        name: One of ``TORCHVISION``.
        root: Folder that holds it, or will.
        download: Fetch it where it is missing.

    Raises:
        ValueError: The name is unknown, or the files are not there and download is off.
    """
    if name not in TORCHVISION:
        near = difflib.get_close_matches(str(name), TORCHVISION, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(TORCHVISION)}"
        raise ValueError(f"data.name={name!r} is not a data set of torchvision that is read here: {hint}")
    if root is None:
        raise ValueError(f"data={name} needs a folder that holds it, or will: data.root=DIR")
    kind, splits = TORCHVISION[name]

    def open_split(arguments: Arguments | None) -> Source | None:
        if arguments is None:
            return None
        if "download" in inspect.signature(kind).parameters:
            arguments = {**arguments, "download": download}
        try:
            return torchvision_source(kind(root=str(Path(root).expanduser()), **arguments))
        except RuntimeError as error:
            remedy = "the download failed" if download else "data.download=true fetches it"
            raise ValueError(f"{name} is not complete in data.root={root}: {remedy} ({error})") from None
        except OSError as error:
            raise ValueError(f"{name} could not be fetched into data.root={root}: {error}") from None

    train = open_split(splits[0])
    assert train is not None, "every data set has a training split"
    return with_validation(train, open_split(splits[1]), open_split(splits[2]))
