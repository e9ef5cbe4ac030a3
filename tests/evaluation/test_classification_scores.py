"""Figures of a classifier against loops, and the file of its predictions."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, log_loss, top_k_accuracy_score
from torchmetrics.functional.classification import multiclass_calibration_error

from mae.evaluation.classification_scores import calibration_error, measure_classification, write_predictions

K = 7
CLASSES = tuple("abcdefg")


def draw(count: int = 400, classes: int = K) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw logits that are right about half of the time; no image is of the last class but one."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(classes - 1, (count,), generator=generator)
    labels[labels == classes - 2] = classes - 1
    logits = 2 * torch.randn(count, classes, generator=generator)
    return logits.scatter_add_(1, labels[:, None], torch.full((count, 1), 2.5)), labels


def test_figures_are_those_of_scikit_learn() -> None:
    logits, labels = draw()
    scores = measure_classification(logits, labels, CLASSES)
    probabilities = logits.double().softmax(1).numpy()
    predicted = probabilities.argmax(1)
    table = confusion_matrix(labels.numpy(), predicted, labels=range(K))
    assert scores.confusion.tolist() == table.tolist()
    assert not scores.confusion.is_floating_point()
    assert scores.top1 == pytest.approx((predicted == labels.numpy()).mean())
    assert scores.top5 == pytest.approx(top_k_accuracy_score(labels.numpy(), probabilities, k=5, labels=range(K)))
    assert scores.top1 < scores.top5 < 1
    assert scores.log_loss == pytest.approx(log_loss(labels.numpy(), probabilities, labels=range(K)), abs=1e-5)
    assert list(scores.per_class) == list(CLASSES)
    for label, name in enumerate(CLASSES):
        members = [p == label for p, truth in zip(predicted, labels.tolist(), strict=True) if truth == label]
        assert scores.per_class[name] == (pytest.approx(np.mean(members)) if members else None)
    assert scores.per_class["f"] is None


@pytest.mark.parametrize(("classes", "known"), [(2, False), (5, False), (6, True)])
def test_top5_is_given_where_it_means_something(classes: int, known: bool) -> None:
    logits, labels = draw(classes=classes)
    scores = measure_classification(logits, labels.clamp(max=classes - 1), CLASSES[:classes])
    assert (scores.top5 is not None) is known


def calibration_by_loop(confidence: list[float], right: list[bool]) -> float:
    total = 0.0
    for b in range(15):
        members = [i for i, c in enumerate(confidence) if b / 15 < c <= (b + 1) / 15]
        if members:
            gap = sum(confidence[i] for i in members) / len(members) - sum(right[i] for i in members) / len(members)
            total += len(members) / len(confidence) * abs(gap)
    return total


def test_calibration_error_equals_a_loop_and_torchmetrics() -> None:
    logits, labels = draw()
    confidence, predicted = logits.softmax(1).max(1)
    expected = calibration_by_loop(confidence.tolist(), (predicted == labels).tolist())
    assert measure_classification(logits, labels, CLASSES).calibration_error == pytest.approx(expected, abs=1e-6)
    theirs = float(multiclass_calibration_error(logits.softmax(1), labels, K, n_bins=15))
    assert theirs == pytest.approx(expected, abs=1e-5)
    assert expected > 0.01


def test_bins_do_not_balance_each_other() -> None:
    # Too modest where confidence is low and too sure where it is high: one wide bin would see neither.
    confidence = torch.rand(300, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    right = torch.rand(300, generator=torch.Generator().manual_seed(1)) < 0.5
    expected = calibration_by_loop(confidence.tolist(), right.tolist())
    assert calibration_error(confidence, right) == pytest.approx(expected)
    assert expected > abs(float((confidence - right.double()).mean())) + 0.1


def test_calibration_error_of_the_perfectly_calibrated_and_of_the_sure_and_wrong() -> None:
    # Four of five are right at 80%; in another bin, one of two at 50%.
    confidence = torch.tensor([0.8] * 5 + [0.5] * 2)
    right = torch.tensor([True] * 4 + [False, True, False])
    assert calibration_error(confidence, right) == pytest.approx(0, abs=1e-7)
    assert calibration_error(torch.ones(4), torch.zeros(4).bool()) == 1


def test_full_confidence_shares_the_last_bin() -> None:
    # 1.0 right and 0.98 wrong make one bin: |1.98 - 1| / 2.
    assert calibration_error(torch.tensor([1.0, 0.98]), torch.tensor([True, False])) == pytest.approx(0.49)


def test_logits_between_zero_and_one_are_still_logits() -> None:
    logits, labels = torch.full((4, 2), 0.5), torch.tensor([0, 0, 1, 1])
    scores = measure_classification(logits, labels, ("a", "b"))
    assert scores.log_loss == pytest.approx(math.log(2))
    assert scores.calibration_error == pytest.approx(0, abs=1e-7)


def test_images_without_a_label_are_refused() -> None:
    logits, labels = draw()
    labels[:3] = -1
    with pytest.raises(ValueError, match="3 of 400 images have no label"):
        measure_classification(logits, labels, CLASSES)
    with pytest.raises(ValueError, match="no images"):
        measure_classification(logits[:0], labels[:0], CLASSES)


def read(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_predictions_are_written_by_name(tmp_path: Path) -> None:
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.0, 3.0, 0.0]])
    names = ['a "quoted", name.png', "sub/ü.png"]
    write_predictions(tmp_path / "p.csv", names, torch.tensor([2, -1]), logits, ("ant", "bee, red", "cat"))
    header, *rows = read(tmp_path / "p.csv")
    assert header == ["image", "label", "predicted", "confidence"]
    assert [row[:3] for row in rows] == [[names[0], "cat", "ant"], [names[1], "", "bee, red"]]
    assert float(rows[0][3]) == pytest.approx(math.exp(2) / (math.exp(2) + 1 + math.e), abs=1e-6)
    assert float(rows[1][3]) == pytest.approx(math.exp(3) / (math.exp(3) + 2), abs=1e-6)
    assert [path.name for path in tmp_path.iterdir()] == ["p.csv"]


def test_of_many_classes_the_five_likeliest_are_written(tmp_path: Path) -> None:
    logits, labels = draw(20)
    write_predictions(tmp_path / "p.csv", [str(i) for i in range(20)], labels, logits, CLASSES)
    header, *rows = read(tmp_path / "p.csv")
    assert header[4:8] == ["class_1", "probability_1", "class_2", "probability_2"]
    assert len(header) == 14
    for row, values, label in zip(rows, logits.double().softmax(1).tolist(), labels.tolist(), strict=True):
        order = sorted(range(K), key=lambda k: -values[k])[:5]
        assert row[1:3] == [CLASSES[label], CLASSES[order[0]]]
        assert row[4::2] == [CLASSES[k] for k in order]
        assert [float(cell) for cell in row[5::2]] == pytest.approx([values[k] for k in order], abs=1e-6)
        assert float(row[3]) == pytest.approx(max(values), abs=1e-6)


def test_a_name_that_is_not_utf8_is_kept_byte_for_byte(tmp_path: Path) -> None:
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    write_predictions(tmp_path / "p.csv", [name], torch.tensor([0]), torch.zeros(1, 2), ("a", "b"))
    assert b"caf\xe9.png,a,a," in (tmp_path / "p.csv").read_bytes()


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("old")
    with pytest.raises(ValueError):
        write_predictions(path, ["one name"], torch.tensor([0, 1]), torch.zeros(2, 2), ("a", "b"))
    assert path.read_text() == "old"
