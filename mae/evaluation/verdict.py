"""What results mean, in plain words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

ABOUT_EQUAL = 0.01


def pretraining_verdicts(results: Mapping[str, Any]) -> list[str]:
    """Return sentences on a pretraining run: whether it reconstructs, and whether its features beat its random start."""
    loss = results["val_loss"]
    if not math.isfinite(loss):
        return ["The loss is not a number: training diverged. Lower optim.base_lr, or set optim.clip_norm=1."]
    sentences = [
        f"Validation loss {loss:.3f} on hidden, normalised patches; predicting each patch's mean would score about 1."
        if results["normalize_pixels"]
        else f"Validation loss {loss:.3f} on hidden patches."
    ]
    if results["normalize_pixels"] and loss > 0.98:
        sentences.append(
            "The loss is still near 1: so far nothing has been learned. Train longer, or raise optim.base_lr."
        )
    if "knn_top1" not in results:
        sentences.append("No labels, so no accuracy: judge the reconstructions, or probe with a few labelled images.")
        return sentences
    trained, random, pixels = (results[key] for key in ("knn_top1", "knn_top1_random", "knn_top1_pixels"))
    sentences.append(
        f"kNN accuracy on frozen features: {trained:.1%}; the same encoder at random weights {random:.1%}, raw pixels {pixels:.1%}."
    )
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
