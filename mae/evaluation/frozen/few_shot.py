"""Few-shot curves: what frozen features give with few labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mae.data.few_labels import few_labels
from mae.evaluation.frozen.knn import Labelled
from mae.evaluation.frozen.logistic import fit_logistic
from mae.masking.seeds import derive_seed

DRAWS = 11
"""The first number of what seeds a draw of labels; masks, layers and heads have others."""


@dataclass(frozen=True)
class Budget:
    """How many training labels are used: so many a class, or a share of every class; neither is all of them."""

    per_class: int | None = None
    fraction: float | None = None

    @property
    def is_everything(self) -> bool:
        """Whether no label is left to chance."""
        return self.per_class is None and self.fraction is None

    def __str__(self) -> str:
        if self.is_everything:
            return "100%"
        return f"{self.per_class} per class" if self.fraction is None else f"{100 * self.fraction:g}%"


SMALL_BUDGETS = (Budget(1), Budget(5), Budget(10), Budget(fraction=0.01), Budget(fraction=0.1))
BUDGETS = (*SMALL_BUDGETS, Budget())


@dataclass(frozen=True)
class FewShotCurve:
    """Accuracies by budget.

    Attributes:
        accuracies: One a draw, under the budget's name; a single one where every label is used.
        right: Whether each scored image is right, (draws, N) bool, under the same names.
        skipped: A sentence on each budget that the data cannot give.
    """

    accuracies: dict[str, list[float]]
    right: dict[str, Tensor]
    skipped: list[str]


def few_shot_curve(
    train: Labelled,
    val: Labelled,
    score: Labelled,
    classes: Sequence[str],
    *,
    draws: int = 5,
    seed: int = 0,
    budgets: Sequence[Budget] = BUDGETS,
    say: Callable[[str], None] = lambda line: None,
) -> FewShotCurve:
    """Fit a logistic regression on each of several draws of labels for each budget, and score it.

    Low-shot evaluation by logistic regression on frozen features follows Assran et al. 2022 (arXiv 2204.07141). C is chosen on
    the whole of ``val``, also where that is more labels than the budget: the curve compares encoders, and flatters the
    smallest budgets a little (Oliver et al. 2018, arXiv 1804.09170).

    Args:
        train: Images to draw from; shares are shares of these.
        val: Images that choose C.
        score: Images that are scored.
        classes: Names of the K classes.
        draws: Draws for each budget.
        seed: Another seed gives draws that are all independent of this one's, so that those of several runs can be pooled.
        budgets: The points of the curve.
        say: Hears of each budget as it starts.

    Raises:
        ValueError: ``draws`` is less than 1.
    """
    if draws < 1:
        raise ValueError(f"draws={draws} leaves nothing to fit: choose 1 or more")
    features, labels = train
    right: dict[str, Tensor] = {}
    skipped = []
    for budget in budgets:
        seeds = [derive_seed(DRAWS, seed, draw) for draw in range(1 if budget.is_everything else draws)]
        try:
            chosen = [few_labels(labels.numpy(), classes, s, budget.per_class, budget.fraction) for s in seeds]
        except ValueError as error:
            skipped.append(f"few-shot with {budget} was skipped: {error}")
            continue
        say(f"few-shot, {budget}: {len(chosen[0]):,} labels, {len(chosen)} draw{'s' * (len(chosen) > 1)}")
        fits = [
            fit_logistic((features[rows], labels[rows]), val, len(classes)) for rows in map(torch.from_numpy, chosen)
        ]
        right[str(budget)] = torch.stack([fit.predict(score[0]).argmax(dim=1) == score[1] for fit in fits])
    accuracies = {budget: [int(one.sum()) / len(one) for one in found] for budget, found in right.items()}
    return FewShotCurve(accuracies, right, skipped)
