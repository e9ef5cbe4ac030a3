"""Arrays that the tests of this room draw, and the images in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mae.data.source import Source
from mae.data.splits import Splits

rng = np.random.default_rng(0)


def drawn(*shape: int, dtype: Any = np.uint8) -> np.ndarray:
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype)


def saved(path: Path, array: np.ndarray) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)
    return str(path)


def everything(splits: Splits) -> list[Tensor]:
    """All images of a source without splits of its own, in the order of the file."""
    assert splits.whole is not None
    return pictures(splits.whole)


def pictures(source: Source) -> list[Tensor]:
    return [source.image(index) for index in range(len(source))]


def only(splits: Splits) -> Tensor:
    return torch.stack(everything(splits))
