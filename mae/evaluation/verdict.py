"""What results mean, in plain words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mae.evaluation.alarm_rules import ABOUT_EQUAL, DIVERGED_REMEDY, NEAR, NOT_A_NUMBER
from mae.objectives.objective import Objective


def pretraining_verdicts(results: Mapping[str, Any], objective: Objective) -> list[str]:
    """Return sentences on a pretraining run: whether it reconstructs, whether its features beat its random start, and what
    was raised while it ran.

    Args:
        results: Its final numbers.
        objective: Knows what its loss is worth.
    """  # noqa: D205
    alarms = results.get("alarms", [])
    if not math.isfinite(results["val_loss"]):
        sentences = [] if any(alarm.startswith(NOT_A_NUMBER) for alarm in alarms) else [_DIVERGED]
        return [
            *sentences,
            *alarms,
            "The weights at its end are of no use and not kept: what checkpoints/ holds is of before.",
        ]
    sentences = [*_on_loss(results, objective), *_on_accuracy(results), *_on_rank(results)]
    return [*sentences, *(f"While training: {alarm}" for alarm in alarms)]


_DIVERGED = f"{NOT_A_NUMBER}: training diverged. {DIVERGED_REMEDY}"


def _on_loss(results: Mapping[str, Any], objective: Objective) -> list[str]:
    loss, trivial = results["val_loss"], objective.trivial(results)
    if trivial is None:
        return [f"Validation loss {loss:.3f} on {objective.what}."]
    sentences = [f"Validation loss {loss:.3f} on {objective.what}; {trivial.by} would score about {trivial.loss:.3g}."]
    if loss > NEAR * trivial.loss:
        sentences.append(
            f"The loss is still near {trivial.loss:.3g}: so far nothing has been learned. Train longer, or raise optim.base_lr."
        )
    return sentences


def _on_accuracy(results: Mapping[str, Any]) -> list[str]:
    probe = [f"A linear probe, trained beside: {results['probe_top1']:.1%}."] if "probe_top1" in results else []
    if "knn_top1" not in results:
        nothing = "No labels, so no accuracy: judge the reconstructions, or probe with a few labelled images."
        return probe or [nothing]
    trained, random, pixels = (results[key] for key in ("knn_top1", "knn_top1_random", "knn_top1_pixels"))
    sentences = [
        f"kNN accuracy on frozen features: {trained:.1%}; the same encoder at random weights {random:.1%}, raw pixels "
        f"{pixels:.1%}.",
        *probe,
    ]
    if trained < random - ABOUT_EQUAL:
        sentences.append(
            "The features are below those of random weights. Early in training this is normal, since the encoder first gives up "
            "what random projections keep; it is no result to build on. Train longer."
        )
    elif trained < random + ABOUT_EQUAL:
        sentences.append("The features are no better than those of random weights yet. Train longer.")
    elif trained < pixels:
        sentences.append(
            "Pretraining helped, yet raw pixels are still the better neighbours, as is usual early in training and for small, "
            "centred images: train longer, or let a probe with few labels say more."
        )
    return sentences


def _on_rank(results: Mapping[str, Any]) -> list[str]:
    if "rankme" not in results:
        return []
    return [
        f"The features of validation images use about {results['rankme']:.0f} dimensions (RankMe); at random weights "
        f"{results['rankme_random']:.0f}."
    ]
