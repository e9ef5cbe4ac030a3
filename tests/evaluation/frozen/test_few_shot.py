"""Few-shot curves: which labels are used, and what is skipped."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mae.data.few_labels import few_labels
from mae.evaluation.frozen.few_shot import BUDGETS, DRAWS, Budget, few_shot_curve
from mae.evaluation.frozen.knn import Labelled
from mae.evaluation.frozen.logistic import STRENGTHS
from mae.masking.seeds import derive_seed

NAMES = ("ant", "bee", "cat")


def draw(count: int, seed: int, noise: float = 1.0) -> Labelled:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    centres = torch.randn(3, 6, generator=torch.Generator().manual_seed(3))
    return centres[labels] + noise * torch.randn(count, 6, generator=generator), labels


TRAIN, VAL, SCORE = draw(300, 0), draw(90, 1), draw(150, 2)


def by_scikit_learn(rows: np.ndarray) -> float:
    """Fit the drawn images alone, choose C on validation, and score; everything by scikit-learn."""
    models = [
        make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=5000, tol=1e-6)).fit(
            TRAIN[0][rows].double().numpy(), TRAIN[1][rows].numpy()
        )
        for c in STRENGTHS
    ]
    best = max(models, key=lambda model: model.score(VAL[0].numpy(), VAL[1].numpy()))
    return float(best.score(SCORE[0].numpy(), SCORE[1].numpy()))


def test_each_budget_is_fitted_on_its_own_draws() -> None:
    curve = few_shot_curve(TRAIN, VAL, SCORE, NAMES, draws=2, seed=4)
    assert list(curve.accuracies) == ["1 per class", "5 per class", "10 per class", "1%", "10%", "100%"]
    assert curve.skipped == []
    labels = TRAIN[1].numpy()
    wanted = {
        "1 per class": (1, None),
        "5 per class": (5, None),
        "10 per class": (10, None),
        "1%": (None, 0.01),
        "10%": (None, 0.1),
    }
    for budget, (per_class, fraction) in wanted.items():
        seeds = [derive_seed(DRAWS, 4, number) for number in range(2)]
        expected = [by_scikit_learn(few_labels(labels, NAMES, seed, per_class, fraction)) for seed in seeds]
        # A neighbouring C may win where two score alike but for rounding.
        assert curve.accuracies[budget] == pytest.approx(expected, abs=0.02), budget
    assert len(set(curve.accuracies["1 per class"])) == 2, "the draws differ"


def test_all_labels_are_fitted_once() -> None:
    curve = few_shot_curve(TRAIN, VAL, SCORE, NAMES, draws=4, budgets=[Budget()])
    assert curve.accuracies == {"100%": [pytest.approx(by_scikit_learn(np.arange(300)), abs=0.01)]}


def test_more_labels_are_worth_more() -> None:
    curve = few_shot_curve(TRAIN, VAL, SCORE, NAMES)
    means = [np.mean(curve.accuracies[name]) for name in ("1 per class", "10 per class", "100%")]
    assert means == sorted(means)
    assert means[-1] > means[0] + 0.05


def test_draws_of_neighbouring_seeds_are_all_different(monkeypatch: pytest.MonkeyPatch) -> None:
    # A sweep over seeds pools them as independent: a draw that came twice would make the interval too narrow.
    drawn: list[tuple[int, ...]] = []

    def note(labels: np.ndarray, *rest: Any) -> np.ndarray:
        rows = few_labels(labels, *rest)
        drawn.append(tuple(rows.tolist()))
        return rows

    monkeypatch.setattr("mae.evaluation.frozen.few_shot.few_labels", note)
    first, *_ = (
        few_shot_curve(TRAIN, VAL, SCORE, NAMES, draws=5, seed=seed, budgets=[Budget(1)]).accuracies
        for seed in range(3)
    )
    assert len(set(drawn)) == len(drawn) == 15
    assert few_shot_curve(TRAIN, VAL, SCORE, NAMES, draws=5, seed=0, budgets=[Budget(1)]).accuracies == first
    assert drawn[15:] == drawn[:5], "a seed repeats its draws"


def test_what_the_smallest_class_cannot_give_is_skipped_by_name() -> None:
    kept = torch.cat([(TRAIN[1] != 1).nonzero()[:, 0], (TRAIN[1] == 1).nonzero()[:7, 0]])
    said: list[str] = []
    curve = few_shot_curve((TRAIN[0][kept], TRAIN[1][kept]), VAL, SCORE, NAMES, draws=2, say=said.append)
    assert list(curve.accuracies) == ["1 per class", "5 per class", "1%", "10%", "100%"]
    (sentence,) = curve.skipped
    for part in ("10 per class", "'bee'", "7"):
        assert part in sentence
    assert len(said) == 5
    assert said[1] == "few-shot, 5 per class: 15 labels, 2 draws"
    assert said[-1] == "few-shot, 100%: 207 labels, 1 draw"


def test_a_class_without_training_images_leaves_the_whole_set_alone() -> None:
    kept = (TRAIN[1] != 1).nonzero()[:, 0]
    curve = few_shot_curve((TRAIN[0][kept], TRAIN[1][kept]), VAL, SCORE, NAMES, draws=2)
    assert list(curve.accuracies) == ["100%"]
    assert len(curve.skipped) == len(BUDGETS) - 1
    assert curve.accuracies["100%"][0] <= 2 / 3


def test_no_draw_is_refused() -> None:
    with pytest.raises(ValueError, match="draws=0"):
        few_shot_curve(TRAIN, VAL, SCORE, NAMES, draws=0)
