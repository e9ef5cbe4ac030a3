"""What results mean, in plain words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mae.evaluation.alarm_rules import BELOW_UNTRAINED, DIVERGED_REMEDY, NEAR, NOT_A_NUMBER, TOO_SHORT
from mae.evaluation.intervals import Estimate, accuracy_estimate
from mae.evaluation.paired import Difference, Word, decisive
from mae.objectives.objective import Objective

MEASURES = {"probe": "a linear probe on frozen features", "knn": "kNN on frozen features"}
"""What says whether pretraining helped, by its name in results.json: the first is what people will use, the second is asked where
the first cannot tell."""
LEADS: Mapping[Word, str] = {"helped": "Better than", "no difference": "Not told apart from", "hurt": "Worse than"}
LONGER = "Pretrain longer (epochs), or on more images."


def pretraining_verdicts(results: Mapping[str, Any], objective: Objective) -> list[str]:
    """Return sentences on a pretraining run, the first with a word: ``Helped``, ``No difference`` or ``Hurt``.

    The word is on its features beside those of its random start, of the same images. Then come raw pixels, whether it was too
    short, what it reconstructs, and what was raised while it ran. Without labels there is no word.

    Args:
        results: Its final numbers.
        objective: Knows what its loss is worth.
    """
    alarms = results.get("alarms", [])
    if not math.isfinite(results["val_loss"]):
        sentences = [] if any(alarm.startswith(NOT_A_NUMBER) for alarm in alarms) else [_DIVERGED]
        return [
            *sentences,
            *alarms,
            "The weights at its end are of no use and not kept: what checkpoints/ holds is of before.",
        ]
    short = [alarm for alarm in alarms if alarm.startswith(TOO_SHORT)]
    # What the features were worth on the way is neither repeated nor a word against the last one.
    rest = [alarm for alarm in alarms if not alarm.startswith((TOO_SHORT, BELOW_UNTRAINED))]
    return [
        *_on_features(results, remedy=not short),
        *short,
        *_on_loss(results, objective),
        *_on_rank(results),
        *(f"While training: {alarm}" for alarm in rest),
    ]


def opening(word: Word, text: str) -> str:
    """Return the first sentence of a verdict, which begins with the word."""
    return f"{word.capitalize()}: {text}"


def beside(name: str, figure: object, difference: Difference) -> str:
    """Return the sentence on another thing to stand beside, with its figure and by how much ours is above it."""
    return f"{LEADS[difference.word]} {name}, {figure}: {difference}."


_DIVERGED = f"{NOT_A_NUMBER}: training diverged. {DIVERGED_REMEDY}"


def _on_loss(results: Mapping[str, Any], objective: Objective) -> list[str]:
    loss, trivial = results["val_loss"], objective.trivial(results)
    if trivial is None:
        return [f"Validation loss {loss:.3f} on {objective.what}."]
    sentences = [f"Validation loss {loss:.3f} on {objective.what}; {trivial.by} would score about {trivial.loss:.3g}."]
    if loss > NEAR * trivial.loss:
        sentences.append(
            f"The loss is still near {trivial.loss:.3g}: of that task nothing has been learned. Train longer, or raise "
            f"optim.base_lr."
        )
    return sentences


def _on_features(results: Mapping[str, Any], remedy: bool) -> list[str]:
    """Return the word and its reasons; ``remedy`` adds what to do about a word that is not good."""
    known = results.get("differences", {})
    images = results.get("measured_images", 0)
    found = {name: Difference.read(known[f"{name}_random"], images) for name in MEASURES if f"{name}_random" in known}
    if not found:
        return _without_word(results)

    def figure(key: str) -> Estimate | str:
        return accuracy_estimate(results[key], images) if images else f"{results[key]:.1%}"

    name = decisive(found)
    difference = found[name]
    where = f" on {images:,} validation images" if images else ""
    sentences = [
        opening(
            difference.word,
            f"{MEASURES[name]} reaches {figure(f'{name}_top1')}, the same on random weights {figure(f'{name}_top1_random')}, "
            f"{difference}{where}.",
        )
    ]
    behind = difference.word != "helped"
    if f"{name}_pixels" in known:
        pixels = Difference.read(known[f"{name}_pixels"], images)
        sentences.append(beside("raw pixels by the same measure", figure(f"{name}_top1_pixels"), pixels))
        behind |= pixels.word == "hurt"
    for other, gap in found.items():
        if other != name:
            ours, random = figure(f"{other}_top1"), figure(f"{other}_top1_random")
            sentences.append(f"By {MEASURES[other]}: {ours}, on random weights {random}, {gap}.")
    return [*sentences, LONGER] if behind and remedy else sentences


def _without_word(results: Mapping[str, Any]) -> list[str]:
    """Return what is known where nothing was paired: there are no labels, or an earlier version measured."""
    figures = [
        f"{MEASURES[name]} {results[f'{name}_top1']:.1%}"
        + (f" (random weights {random:.1%})" if (random := results.get(f"{name}_top1_random")) is not None else "")
        for name in MEASURES
        if f"{name}_top1" in results
    ]
    if not figures:
        return [
            "No labels, so no word on whether pretraining helped: judge the reconstructions, or let a few labelled images decide "
            "(train_finetune.py labels_per_class=5)."
        ]
    return [
        f"Measured without intervals: {', '.join(figures)}. Whether that is more than chance, train_finetune.py "
        f"protocol=features tells."
    ]


def _on_rank(results: Mapping[str, Any]) -> list[str]:
    if "rankme" not in results:
        return []
    return [
        f"The features of validation images use about {results['rankme']:.0f} dimensions (RankMe); at random weights "
        f"{results['rankme_random']:.0f}."
    ]
