"""Intervals of differences hold what they promise, and say which of two is better just where a test would."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from scipy import optimize, stats
from torch import Tensor

from mae.evaluation.intervals import accuracy_estimate
from mae.evaluation.paired import (
    Difference,
    clearly_better,
    decisive,
    paired_difference,
    paired_runs,
    resampled,
    resampled_difference,
)


def pairs(both: int, gained: int, lost: int, neither: int) -> tuple[Tensor, Tensor]:
    """Two classifiers with these counts of images."""
    ours = torch.tensor([True] * (both + gained) + [False] * (lost + neither))
    other = torch.tensor([True] * both + [False] * gained + [True] * lost + [False] * neither)
    return ours, other


@pytest.mark.parametrize(("gained", "lost"), [(0, 1), (12, 4), (1, 9), (30, 30)])
def test_at_its_ends_the_score_is_that_of_a_normal_deviate(gained: int, lost: int) -> None:
    images = 80
    found = paired_difference(*pairs(images - gained - lost, gained, lost, 0))

    def score(difference: float) -> float:
        """The likeliest share of lost images given the difference is searched for, not solved for."""

        def unlikely(share: float) -> float:
            same = 1 - 2 * share - difference
            return -sum(
                n * math.log(p)
                for n, p in ((gained, share + difference), (lost, share), (images - gained - lost, same))
                if n
            )

        low, high = max(0.0, -difference), (1 - difference) / 2
        share = optimize.minimize_scalar(unlikely, bounds=(low, high), method="bounded", options={"xatol": 1e-10}).x
        spread = math.sqrt(2 * share + difference - difference**2)
        return (found.mean - difference) * math.sqrt(images) / spread

    assert score(found.low) == pytest.approx(1.96, abs=2e-3)
    assert score(found.high) == pytest.approx(-1.96, abs=2e-3)


@pytest.mark.parametrize(("gained", "lost"), itertools.product((0, 1, 3, 4, 9, 20), repeat=2))
def test_it_excludes_zero_just_where_mcnemar_rejects(gained: int, lost: int) -> None:
    found = paired_difference(*pairs(20, gained, lost, 20))
    rejected = (gained - lost) ** 2 > stats.chi2.ppf(0.95, 1) * (gained + lost)
    assert (found.word != "no difference") == rejected
    assert found.low <= found.mean <= found.high
    assert found.word == ("no difference" if not rejected else "helped" if gained > lost else "hurt")


@pytest.mark.parametrize("counts", [(5, 3, 1, 1), (0, 7, 0, 0), (0, 0, 0, 1), (40, 0, 0, 3), (100, 12, 40, 9)])
def test_turned_round_it_is_the_same(counts: tuple[int, int, int, int]) -> None:
    ours, other = pairs(*counts)
    assert paired_difference(other, ours).plain == pytest.approx((-paired_difference(ours, other)).plain, abs=1e-7)


def test_two_that_never_disagree_are_a_tie_that_more_images_make_surer() -> None:
    few, many = (paired_difference(*pairs(images, 0, 0, 0)) for images in (10, 10_000))
    assert few.word == many.word == "no difference"
    assert few.high == pytest.approx(-few.low, abs=1e-7)
    assert few.high > 0.2 > 0.001 > many.high > 0


def test_one_image_decides_nothing() -> None:
    found = paired_difference(*pairs(0, 1, 0, 0))
    assert found.word == "no difference" and found.low < 0 < found.high == 1


def test_all_gained_is_certain_up_to_the_number_of_images() -> None:
    found = paired_difference(*pairs(0, 50, 0, 0))
    assert found.high == found.mean == 1 and 0.8 < found.low < 1


@pytest.mark.parametrize(
    ("images", "shares"), [(50, (0.5, 0.1, 0.1)), (200, (0.6, 0.15, 0.1)), (200, (0.9, 0.02, 0.01))]
)
def test_it_covers_the_truth_in_95_of_a_hundred_cases(images: int, shares: tuple[float, float, float]) -> None:
    both, gained, lost = shares
    generator, truth = torch.Generator().manual_seed(0), gained - lost
    drawn = torch.multinomial(
        torch.tensor([both, gained, lost, 1 - sum(shares)]), 1500 * images, replacement=True, generator=generator
    ).reshape(1500, images)
    found = [paired_difference((one == 0) | (one == 1), (one == 0) | (one == 2)) for one in drawn]
    share = sum(one.low <= truth <= one.high for one in found) / len(found)
    assert 0.93 < share < 0.985


def test_runs_cover_both_other_draws_and_other_images() -> None:
    runs, images, covered, by_images_alone = 5, 200, 0, 0
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    for _ in range(400):
        hard, luck = 0.8 * normal(1, images), 0.4 * normal(2, runs, 1)
        right = [hard + luck[side] + normal(runs, images) < 0 for side in (0, 1)]
        found = paired_runs(*right)
        covered += found.low <= 0 <= found.high
        one = paired_difference(right[0][0], right[1][0])
        by_images_alone += one.low <= 0 <= one.high
    assert 0.92 < covered / 400 <= 1
    assert by_images_alone / 400 < 0.8  # one draw cannot tell how much another would change


def test_one_pair_of_runs_is_a_pair() -> None:
    ours, other = pairs(30, 9, 2, 9)
    assert paired_runs(ours[None], other[None]) == paired_difference(ours, other)


def test_runs_that_agree_are_a_tie() -> None:
    right = torch.rand(3, 20) < 0.5
    assert paired_runs(right, right).word == "no difference"


def test_runs_that_agree_in_their_means_by_chance_are_not_certain() -> None:
    ours = torch.zeros(2, 100, dtype=torch.bool)
    ours[0, 0] = ours[1, 1] = True
    found = paired_runs(ours, torch.zeros_like(ours))
    assert found.word == "no difference" and found.low < 0 < found.high


def test_as_text_and_in_a_file() -> None:
    found = Difference(0.041, 0.018, 0.0641, 500)
    assert str(found) == "+4.1 points (+1.8 to +6.4)"
    assert str(-found) == "-4.1 points (-6.4 to -1.8)"
    assert Difference.read(found.plain, 500) == found


@pytest.mark.parametrize(("ours", "other"), [((0,), (0,)), ((3,), (4,)), ((2, 3), (2, 3))])
def test_what_cannot_be_paired_is_refused(ours: tuple[int, ...], other: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_difference(torch.ones(ours), torch.ones(other))


def test_runs_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="runs x images"):
        paired_runs(torch.ones(2, 3), torch.ones(3, 3))


def share(sums: Tensor) -> Tensor:
    return sums[:, 0] / sums[:, 1]


def test_resampled_images_give_the_interval_of_an_accuracy_and_of_its_difference() -> None:
    generator = torch.Generator().manual_seed(0)
    right = torch.rand(2, 300, generator=generator) < torch.tensor([[0.7], [0.55]])
    ours, other = (torch.stack([one.double(), torch.ones(300)], dim=1) for one in right)
    wilson = accuracy_estimate(float(right[0].double().mean()), 300)
    found = resampled(ours, share)
    assert found == resampled(ours, share)
    assert (found.low, found.high) == pytest.approx((wilson.low, wilson.high), abs=0.01)
    tango = paired_difference(right[0], right[1])
    assert resampled_difference(ours, other, share).plain == pytest.approx(tango.plain, abs=0.01)


def test_few_images_resampled_still_cover() -> None:
    generator, held = torch.Generator().manual_seed(1), 0
    for _ in range(150):
        values = torch.randn(8, generator=generator) * 0.1 + 0.5
        found = resampled(torch.stack([values.double(), torch.ones(8)], dim=1), share)
        held += found.low <= 0.5 <= found.high
    assert held / 150 > 0.91


def test_one_image_says_nothing_of_others_and_none_is_refused() -> None:
    one = torch.tensor([[3.0, 4.0]])
    assert resampled_difference(one, one - 1, share).plain == pytest.approx([3 / 4 - 2 / 3, -1, 1])
    with pytest.raises(ValueError, match="one or more"):
        resampled(torch.zeros(0, 2), share)
    with pytest.raises(ValueError, match="the same images"):
        resampled_difference(one, torch.zeros(2, 2), share)


def test_the_first_measure_that_is_no_tie_decides_unless_the_best_leans_the_other_way() -> None:
    up, down = Difference(0.05, -1, 1, 9), Difference(-0.05, -1, 1, 9)
    gain, loss = Difference(0.2, 0.1, 0.3, 9), Difference(-0.2, -0.3, -0.1, 9)
    given = (
        [up, gain],
        [down, loss],
        [up, loss],
        [down, gain],
        [gain, loss],
        [loss, gain],
        [up, down],
        [up, down, gain],
    )
    assert [decisive(dict(zip("abc", one, strict=False))) for one in given] == ["b", "b", "a", "a", "a", "a", "a", "c"]


@pytest.mark.parametrize(
    ("gained", "lost", "images", "better"),
    [
        (0, 0, 100, False),
        (1, 0, 100, False),
        (5, 4, 100, False),
        (9, 3, 100, True),
        (3, 9, 100, False),
        (28, 19, 382, True),
        (26, 21, 382, False),
    ],
)
def test_an_accuracy_is_clearly_better_by_more_than_a_standard_error(
    gained: int, lost: int, images: int, better: bool
) -> None:
    ours, other = torch.zeros(images, dtype=torch.bool), torch.zeros(images, dtype=torch.bool)
    ours[:gained], other[gained : gained + lost] = True, True
    assert clearly_better(ours, other) is better
