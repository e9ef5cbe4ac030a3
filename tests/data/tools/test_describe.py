"""Numbers of a data set, against numpy and against what training sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mae.data.sources.files import folder
from mae.data.tools.describe import describe, histogram
from tests.data.drawing import write_folder
from tests.data.mixed_sizes import as_training_measures, write_large_and_small


@pytest.mark.parametrize("workers", [0, 2])
def test_a_description_is_that_of_numpy(tmp_path: Path, workers: int) -> None:
    root = write_folder(tmp_path, 7, 20, 30)
    (root / "damaged.png").write_bytes(b"damaged")
    found = describe(folder(str(root)).own["train"], workers=workers)
    pixels = np.stack([np.asarray(Image.open(path)) for path in sorted(root.glob("image*"))]) / 255
    assert (found.count, found.unreadable, found.channels, found.bits) == (8, 1, 3, 8)
    assert found.sizes.tolist() == [[20, 30]] * 7
    assert found.mean == pytest.approx(pixels.mean((0, 1, 2)), rel=1e-5)
    assert found.std == pytest.approx(pixels.std((0, 1, 2)), rel=1e-5)
    assert len(describe(folder(str(root)).own["train"], images=3).sizes) <= 3


def test_each_image_counts_the_same_as_it_does_in_training(tmp_path: Path) -> None:
    # The large image has seventy times the pixels of all others, and is a tenth of what training sees.
    splits = folder(str(write_large_and_small(tmp_path / "images")))
    found = describe(splits.own["train"])
    mean, std = as_training_measures(splits)
    assert found.mean == pytest.approx(mean, abs=0.01)
    assert found.std == pytest.approx(std, abs=0.01)
    assert mean[0] == pytest.approx((9 * 220 + 40) / 10 / 255, abs=0.01)


def test_a_histogram_counts_every_value_once() -> None:
    values = np.random.default_rng(0).integers(20, 900, 500)
    lines = histogram(values)
    assert len(lines) == 8
    assert sum(int(line.split()[-1]) for line in lines) == 500
    assert [line.split() for line in histogram([7, 7, 7])] == [["7", "█" * 30, "3"]]
    assert [line.split()[0] for line in histogram([1, 3])] == ["1", "2", "3"]
