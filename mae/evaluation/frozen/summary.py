"""Everything that frozen features tell without training a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mae.data.source import drawn
from mae.evaluation.classification_scores import share_right
from mae.evaluation.frozen.clustering import ClusteringScores, measure_clustering
from mae.evaluation.frozen.features import whitened
from mae.evaluation.frozen.few_shot import SMALL_BUDGETS, Budget, few_shot_curve
from mae.evaluation.frozen.knn import KnnScore, Labelled, knn_predict, knn_sweep
from mae.evaluation.frozen.logistic import MOST_ITERATIONS, LogisticFit, fit_logistic
from mae.evaluation.frozen.retrieval import RetrievalScores, measure_retrieval

MOST_TRAIN = 50_000
MOST_OTHERS = 10_000
RANKING_POWER = 0.5
"""Of the whitening where all images are ranked or clustered: neighbours bear the noise of a full one, averages do not."""


@dataclass(frozen=True, eq=False)
class FrozenScores:
    """What was measured; figures are on the images to score, where nothing else is said.

    Attributes:
        knn: The k and temperature that did best on validation, with their accuracy there.
        knn_top1: Accuracy with these.
        logistic: The fit on all labels, with the C that did best on validation.
        logistic_top1: Its accuracy.
        few_shot: Accuracies, one a draw, by budget.
        clustering: None where there are fewer images than classes.
        retrieval: Among the images to score themselves; None where no two are of one class.
        right: Whether each scored image is right, (draws, N) bool, by measure: ``knn``, ``logistic``, and each few-shot budget.
        notes: What was thinned out, skipped, or did not converge, in sentences.
    """

    knn: KnnScore
    knn_top1: float
    logistic: LogisticFit
    logistic_top1: float
    few_shot: dict[str, list[float]]
    clustering: ClusteringScores | None
    retrieval: RetrievalScores | None
    right: dict[str, Tensor]
    notes: list[str]

    def results(self) -> dict[str, Any]:
        """Return the figures by plain names, as JSON takes them; what could not be measured is left out."""
        results: dict[str, Any] = {
            "knn_top1": self.knn_top1,
            "knn_k": self.knn.k,
            "knn_temperature": self.knn.temperature,
            "knn_val_top1": self.knn.accuracy,
            "logistic_top1": self.logistic_top1,
            "logistic_c": self.logistic.strength,
            "logistic_val_top1": self.logistic.val_accuracy,
            "few_shot": self.few_shot,
        }
        if self.clustering is not None:
            results["clustering_nmi"] = self.clustering.nmi
            results["clustering_ari"] = self.clustering.ari
            results["clustering_accuracy"] = self.clustering.accuracy
        if self.retrieval is not None:
            results |= {f"retrieval_recall_{k}": recall for k, recall in self.retrieval.recall.items()}
            results["retrieval_precision_10"] = self.retrieval.precision_10
            results["retrieval_map"] = self.retrieval.mean_average_precision
        return {**results, "frozen_notes": self.notes}


def measure_frozen(
    train: Labelled,
    val: Labelled,
    score: Labelled,
    classes: Sequence[str],
    *,
    draws: int = 5,
    seed: int = 0,
    whiten: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> FrozenScores:
    """Measure features by kNN, logistic regression, few-shot curves, clustering and retrieval.

    Whatever is chosen (k, temperature, C) is chosen on ``val``. ``score`` is the test split, or ``val`` again where there is
    none; then the figures are of the images that chose, and the caller says so.

    Up to 50,000 training images are used, and up to 10,000 of each other split, drawn at random and the same for every
    encoder and seed.

    Args:
        train: Images that vote and are fitted.
        val: Images that choose.
        score: Images that are scored.
        classes: Names of the K classes.
        draws: Draws of labels for each budget of the few-shot curve.
        seed: Of the draws, and of k-means.
        whiten: Whether kNN compares whitened features, and clusters and retrieval those whitened half way; a regression
            standardises them in any case. docs/recipes.md shows what is best for which measure.
        say: Hears of each part as it starts.

    Raises:
        ValueError: A split is empty, has images without a label, or features that are not finite; or the training
            images are all of one class.
    """
    notes: list[str] = []
    train = _checked_and_thinned("training", train, MOST_TRAIN, notes)
    val = _checked_and_thinned("validation", val, MOST_OTHERS, notes)
    score = _checked_and_thinned("scored", score, MOST_OTHERS, notes)
    K = len(classes)
    bank, choosing, scored, half = train, val, score, score
    if whiten:
        bank, choosing, scored = zip(whitened(train[0], val[0], score[0]), (train[1], val[1], score[1]), strict=True)
        half = whitened(train[0], score[0], power=RANKING_POWER)[1], score[1]

    say(f"kNN: {len(train[0]):,} images vote")
    knn = max(knn_sweep(bank, choosing, K), key=lambda tried: tried.accuracy)
    neighbours = knn_predict(*bank, scored[0], K, k=knn.k, temperature=knn.temperature)

    say(f"logistic regression on {len(train[0]):,} images")
    logistic = fit_logistic(train, val, K)
    predicted = {"knn": neighbours, "logistic": logistic.predict(score[0]).argmax(dim=1)}
    knn_top1, logistic_top1 = (share_right(classes_of, score[1]) for classes_of in predicted.values())
    if not logistic.converged:
        notes.append(
            f"The logistic regression with C={logistic.strength:g} had not converged after {MOST_ITERATIONS} iterations."
        )

    curve = few_shot_curve(train, val, score, classes, draws=draws, seed=seed, budgets=SMALL_BUDGETS, say=say)
    notes += curve.skipped

    clustering, retrieval = None, None
    say(f"clusters of {len(score[0]):,} images")
    try:
        clustering = measure_clustering(*half, K, seed=seed)
    except ValueError as error:
        notes.append(f"clustering was skipped: {error}")
    say(f"retrieval among {len(score[0]):,} images")
    try:
        retrieval = measure_retrieval(half)
    except ValueError as error:
        notes.append(f"retrieval was skipped: {error}")

    few_shot = {**curve.accuracies, str(Budget()): [logistic_top1]}
    right = {name: (one == score[1])[None] for name, one in predicted.items()} | curve.right
    return FrozenScores(knn, knn_top1, logistic, logistic_top1, few_shot, clustering, retrieval, right, notes)


def _checked_and_thinned(name: str, labelled: Labelled, most: int, notes: list[str]) -> Labelled:
    """Return up to ``most`` images of a split, drawn at random; add a note where some are left out."""
    features, labels = labelled
    if not len(labels):
        raise ValueError(f"no {name} images: frozen features need one or more to be measured")
    unknown = int((labels < 0).sum())
    if unknown:
        raise ValueError(f"{unknown} of {len(labels)} {name} images have no label: leave them out")
    if not features.isfinite().all():
        raise ValueError(
            f"features of the {name} images are not finite: training diverged; lower optim.base_lr, or set optim.clip_norm=1"
        )
    if len(labels) <= most:
        return features, labels
    notes.append(f"{most:,} of the {len(labels):,} {name} images were used, drawn at random.")
    kept = torch.from_numpy(drawn(len(labels), most))
    return features[kept], labels[kept]
