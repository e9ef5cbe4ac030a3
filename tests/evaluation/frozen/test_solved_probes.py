"""What frozen features are worth on images set aside, without training a network."""

from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from mae.data.datamodule import ImageData
from mae.data.sources.bundled import digits
from mae.data.splits import Splits
from mae.evaluation.frozen.features import raw_pixels
from mae.evaluation.frozen.knn import Labelled
from mae.evaluation.frozen.solved_probes import ValidationImages, knn_right, probe_right

K = 5


def labelled(count: int, *, seed: int, width: int = 24) -> Labelled:
    """Return features whose classes differ in small directions, below three that hold nearly all of the variance."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(K, (count,), generator=generator)
    centres = torch.randn(K, width, generator=torch.Generator().manual_seed(99))
    spread = torch.ones(width)
    spread[:3] = 60.0
    return 0.1 * spread * torch.randn(count, width, generator=generator) + 0.1 * centres[labels], labels


def share(right: Tensor) -> float:
    return float(right.float().mean())


def test_whitening_brings_out_what_large_directions_drown() -> None:
    bank, queries = labelled(1500, seed=0), labelled(500, seed=1)
    judge = KNeighborsClassifier(20, metric="cosine").fit(bank[0].numpy(), bank[1].numpy())
    assert share(knn_right(bank, queries, K)) > judge.score(queries[0].numpy(), queries[1].numpy()) + 0.2


def test_the_probe_is_a_logistic_regression_whose_strength_is_chosen_apart() -> None:
    bank, queries = labelled(600, seed=0), labelled(500, seed=1)
    scaler = StandardScaler().fit(bank[0].numpy())
    best = max(
        LogisticRegression(C=C, max_iter=2000)
        .fit(scaler.transform(bank[0].numpy()), bank[1].numpy())
        .score(scaler.transform(queries[0].numpy()), queries[1].numpy())
        for C in (1e-3, 1e-2, 0.1, 1.0)
    )
    right = probe_right(bank, queries, K)
    assert right.dtype == torch.bool
    assert best - 0.02 <= share(right) <= best
    # The queries choose nothing: each is right or not, whatever the others are.
    assert torch.equal(right[:50], probe_right(bank, (queries[0][:50], queries[1][:50]), K))


@pytest.mark.parametrize("measure", [knn_right, probe_right])
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_banks_of_a_few_images_and_of_one_class_have_a_figure(measure: object, count: int) -> None:
    queries = labelled(50, seed=1)
    bank = labelled(count, seed=0)
    assert callable(measure)
    assert len(measure(bank, queries, K)) == 50
    alone = (bank[0], torch.full((count,), 3))
    assert torch.equal(measure(alone, queries, K), queries[1] == 3)


@pytest.fixture(scope="module")
def data() -> ImageData:
    splits = digits()

    class NoTest:
        """A test split that may not be read."""

        classes, labels = splits.test.classes, splits.test.labels

        def __len__(self) -> int:
            return 360

        def image(self, index: int) -> torch.Tensor:
            raise AssertionError("the test split has been read")

    return ImageData(
        Splits(splits.train, splits.val, NoTest(), splits.origin),
        image_size=(8, 8),
        channels=1,
        effective_batch=64,
        micro_batch=64,
        min_scale=1,
        flip=False,
        num_workers=0,
        seed=0,
    )


def test_the_images_are_spread_over_the_classes_and_never_of_the_test_split(data: ImageData) -> None:
    images = ValidationImages(data, bank=100, queries=30)
    mean, std = torch.full((1, 1, 1), 0.3), torch.full((1, 1, 1), 0.4)
    bank, queries = (extract(raw_pixels, mean, std) for extract in (images.bank_of, images.queries_of))
    assert (len(bank[0]), len(queries[0])) == (100, 30)
    assert len(torch.unique(bank[1])) == images.classes == 10
    whole = ValidationImages(data)
    features = [extract(raw_pixels, mean, std) for extract in (whole.bank_of, whole.queries_of)]
    for right in (knn_right(*features, 10), probe_right(*features, 10)):
        assert share(right) > 0.9
