"""Figures of a segmentation against torchmetrics and a loop."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics.classification import MulticlassJaccardIndex

from mae.data.segmentation.masks import IGNORE, MaskError
from mae.evaluation.segmentation_scores import (
    commonest,
    count_confusions,
    image_counts,
    mean_iou,
    measure_segmentation,
    pixel_accuracy,
)

K = 7


def draw(seed: int, classes: int = K) -> tuple[Tensor, Tensor]:
    """Draw masks and predictions that are right about half of the time; one class never occurs, one is only predicted."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(classes - 2, (3, 9, 11), generator=generator)
    prediction = torch.where(torch.rand(truth.shape, generator=generator) < 0.5, truth, truth.roll(1, 0))
    prediction[0, 0, :3] = classes - 2
    truth[torch.rand(truth.shape, generator=generator) < 0.2] = IGNORE
    truth[0, 0, 0] = 0
    return truth.to(torch.uint8), prediction


def SEEDS(test: Callable[[int], None]) -> Callable[[], None]:  # noqa: N802
    return settings(max_examples=8)(given(seed=st.integers(0, 2**32))(test))


def counted(truth: Tensor, prediction: Tensor, classes: int = K) -> Tensor:
    metric = count_confusions(classes)
    metric.update(prediction, truth)
    return metric.compute()


@SEEDS
def test_figures_are_those_of_torchmetrics(seed: int) -> None:
    truth, prediction = draw(seed)
    scores = measure_segmentation(counted(truth, prediction))
    macro = MulticlassJaccardIndex(K, average="macro", ignore_index=IGNORE)
    each = MulticlassJaccardIndex(K, average="none", ignore_index=IGNORE)
    assert scores.mean_iou == pytest.approx(float(macro(prediction, truth)), abs=1e-6)
    for ours, theirs in zip(scores.iou, each(prediction, truth).tolist(), strict=True):
        assert (0 if ours is None else ours) == pytest.approx(theirs, abs=1e-6)


@SEEDS
def test_figures_are_those_of_a_loop(seed: int) -> None:
    truth, prediction = draw(seed)
    scores = measure_segmentation(counted(truth, prediction))
    pairs = [
        pair for pair in zip(truth.flatten().tolist(), prediction.flatten().tolist(), strict=True) if pair[0] != IGNORE
    ]
    assert scores.pixel_accuracy == pytest.approx(sum(t == p for t, p in pairs) / len(pairs))
    found = []
    for label in range(K):
        here = {i for i, (t, _) in enumerate(pairs) if t == label}
        named = {i for i, (_, p) in enumerate(pairs) if p == label}
        assert scores.pixels[label] == len(here)
        if here | named:
            assert scores.iou[label] == pytest.approx(len(here & named) / len(here | named))
        else:
            assert scores.iou[label] is None
        if here:
            found.append(len(here & named) / len(here))
    assert scores.mean_accuracy == pytest.approx(sum(found) / len(found))
    assert scores.iou[K - 2] == 0, "a class that is only predicted counts"
    assert scores.iou[K - 1] is None


def test_batches_and_logits_count_as_their_classes_do() -> None:
    truth, prediction = draw(0)
    parts = count_confusions(K)
    for one, other in zip(truth.split(1), prediction.split(1), strict=True):
        parts.update(torch.nn.functional.one_hot(other, K).movedim(-1, 1).float(), one)
    whole = counted(truth, prediction)
    assert torch.equal(parts.compute(), whole)
    assert whole.dtype == torch.int64
    assert int(whole.sum()) == int((truth != IGNORE).sum())


def test_the_number_of_classes_may_be_what_a_byte_holds() -> None:
    truth = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
    confusion = counted(truth, truth.long().clamp(max=254), 255)
    assert torch.equal(confusion, torch.eye(255, dtype=torch.int64))


def test_the_perfect_and_the_wrong() -> None:
    perfect = measure_segmentation(torch.diag(torch.tensor([3, 0, 9])))
    assert (perfect.mean_iou, perfect.pixel_accuracy, perfect.mean_accuracy) == (1, 1, 1)
    assert perfect.iou == (1, None, 1)
    wrong = measure_segmentation(torch.tensor([[0, 4], [5, 0]]))
    assert (wrong.mean_iou, wrong.pixel_accuracy, wrong.mean_accuracy) == (0, 0, 0)


@SEEDS
def test_the_commonest_class_is_measured_as_any_prediction(seed: int) -> None:
    truth, prediction = draw(seed)
    confusion = counted(truth, prediction)
    constant = torch.full_like(prediction, int(confusion.sum(dim=1).argmax()))
    expected = measure_segmentation(counted(truth, constant))
    baseline = commonest(confusion)
    assert vars(baseline) == vars(expected)
    most, occurring = max(expected.pixels), sum(count > 0 for count in expected.pixels)
    assert baseline.pixel_accuracy == pytest.approx(most / sum(expected.pixels))
    assert baseline.mean_iou == pytest.approx(most / sum(expected.pixels) / occurring)
    assert baseline.mean_accuracy == pytest.approx(1 / occurring)


def test_counts_of_many_pixels_are_exact() -> None:
    # float32 would lose the last pixel.
    scores = measure_segmentation(torch.tensor([[2**40, 0], [1, 2**40]]))
    assert scores.pixels == (2**40, 2**40 + 1)
    assert 1 - 1e-12 < scores.pixel_accuracy < 1


@pytest.mark.parametrize("measure", [measure_segmentation, commonest])
def test_pixels_without_labels_cannot_be_measured(measure: Callable[[Tensor], object]) -> None:
    with pytest.raises(MaskError, match="no pixel that was scored has a label"):
        measure(torch.zeros(3, 3, dtype=torch.int64))


@SEEDS
def test_images_add_up_to_the_figures_of_them_all(seed: int) -> None:
    truth, prediction = draw(seed)
    sums = image_counts(prediction, truth, K).sum(dim=0, keepdim=True)
    scores = measure_segmentation(counted(truth, prediction))
    assert float(mean_iou(sums)) == pytest.approx(scores.mean_iou)
    assert float(pixel_accuracy(sums)) == pytest.approx(scores.pixel_accuracy)
