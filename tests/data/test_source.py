"""How data are cut into splits, and how few labels are drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mae.data.few_labels import few_labels
from mae.data.source import Subset
from mae.data.sources.bundled import TensorSource
from mae.data.splits import hold_out, with_validation


def source(counts: tuple[int, ...] | None, length: int = 0) -> TensorSource:
    """An in-memory source with so many images of each class, shuffled; pixel (0, 0, 0) is the image's number."""
    labels = None if counts is None else np.random.default_rng(3).permutation(np.repeat(np.arange(len(counts)), counts))
    length = length if labels is None else len(labels)
    images = (torch.arange(length) % 256).to(torch.uint8).view(-1, 1, 1, 1).repeat(1, 1, 2, 2)
    return TensorSource(images, labels, tuple("abcdefgh"[: len(counts or ())]))


@pytest.mark.parametrize("counts", [None, (40, 40), (70, 20, 10)])
def test_holding_out_is_a_partition_and_the_same_each_time(counts: tuple[int, ...] | None) -> None:
    data = source(counts, length=100)
    kept, held = hold_out(data, 10)
    again = hold_out(data, 10)
    assert sorted([*kept, *held]) == list(range(len(data)))
    assert len(held) == 10
    assert np.array_equal(kept, again[0])
    assert np.array_equal(held, again[1])


def test_holding_out_leaves_the_global_generators_alone() -> None:
    # The split would otherwise move with the seed of a run, or move it.
    np.random.seed(1)  # noqa: NPY002
    first = hold_out(source((30, 30)), 6)[1]
    np.random.seed(2)  # noqa: NPY002
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    assert np.array_equal(first, hold_out(source((30, 30)), 6)[1])
    assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002


def test_held_out_images_are_no_block_of_the_files() -> None:
    # Files come sorted by name, often by class or by day: the last tenth of them would be another kind of data.
    held = hold_out(source(None, 1000), 100)[1]
    assert 400 < held.mean() < 600
    assert len(np.unique(held // 100)) == 10


@pytest.mark.parametrize("count", [10, 20, 37])
def test_every_class_gives_its_share(count: int) -> None:
    data = source((70, 20, 10))
    held = hold_out(data, count)[1]
    given = np.bincount(data.labels[held], minlength=3)
    assert np.abs(given - np.array([0.7, 0.2, 0.1]) * count).max() < 2


def test_a_tenth_is_held_out_unless_the_data_bring_their_own() -> None:
    data, own = source((50, 50)), source((3, 3))
    splits = with_validation(data, None, None)
    assert (len(splits.train), len(splits.val)) == (90, 10)
    splits = with_validation(data, own, None)
    assert len(splits.train) == 100
    assert splits.val is own


def test_two_images_suffice_and_one_does_not() -> None:
    splits = with_validation(source(None, 2), None, None)
    assert (len(splits.train), len(splits.val)) == (1, 1)
    with pytest.raises(ValueError, match="1 image is too few"):
        with_validation(source(None, 1), None, None)


def test_a_subset_keeps_images_labels_and_names_together() -> None:
    data = source((5, 5))
    chosen = [7, 0, 3]
    subset = Subset(data, chosen)
    assert [int(subset.image(i)[0, 0, 0]) for i in range(3)] == chosen
    assert subset.labels.tolist() == data.labels[chosen].tolist()
    assert [subset.name(i) for i in range(3)] == [data.name(i) for i in chosen]


LABELS = source((30, 20, 5)).labels
NAMES = ("a", "b", "c")


@pytest.mark.parametrize("per_class", [1, 3, 5])
def test_each_class_gives_as_many_labels_as_asked_for(per_class: int) -> None:
    chosen = few_labels(LABELS, NAMES, 0, per_class, None)
    assert np.bincount(LABELS[chosen]).tolist() == [per_class] * 3
    assert len(np.unique(chosen)) == 3 * per_class


def test_each_class_gives_its_share_and_one_at_least() -> None:
    assert np.bincount(LABELS[few_labels(LABELS, NAMES, 0, None, 0.1)]).tolist() == [3, 2, 1]
    assert np.bincount(LABELS[few_labels(LABELS, NAMES, 0, None, 0.01)]).tolist() == [1, 1, 1]
    assert len(few_labels(LABELS, NAMES, 0, None, 1.0)) == 55


def test_the_draw_is_a_function_of_the_seed() -> None:
    draws = [few_labels(LABELS, NAMES, seed, 3, None) for seed in (0, 0, 1)]
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


def test_all_labels_are_used_where_nothing_is_asked() -> None:
    assert np.array_equal(few_labels(LABELS, NAMES, 0, None, None), np.arange(55))


@pytest.mark.parametrize(
    ("per_class", "fraction", "message"),
    [
        (6, None, r"class 'c' has 5 .* fewer than the 6 .*labels_per_class=5"),
        (1, 0.5, "labels_per_class=1 and label_fraction=0.5"),
        (None, 0.0, r"label_fraction=0.0.*\(0, 1\]"),
        (None, 1.5, r"label_fraction=1.5.*\(0, 1\]"),
        (0, None, "labels_per_class=0 leaves no label"),
    ],
)
def test_an_impossible_draw_says_what_would_be_right(
    per_class: int | None, fraction: float | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        few_labels(LABELS, NAMES, 0, per_class, fraction)


def test_the_advice_is_what_every_class_can_give() -> None:
    # Class a fails first; the number that is offered must not fail at class c in turn.
    with pytest.raises(ValueError, match="labels_per_class=5 is the most"):
        few_labels(LABELS, NAMES, 0, 40, None)
