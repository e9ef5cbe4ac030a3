"""Reconstructions: what is shown where."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import mae
from mae.evaluation.reconstruct import Reconstruction, reconstruct

P = 4


def hidden_pixels(plan: mae.MaskPlan) -> torch.Tensor:
    """Return (B, 1, H, W), True where a pixel is hidden, by a loop over the patches."""
    mask = torch.zeros(len(plan.mask), 1, plan.grid[0] * P, plan.grid[1] * P, dtype=torch.bool)
    for b, row in enumerate(plan.masked.tolist()):
        for patch in row:
            y, x = divmod(patch, plan.grid[1])
            mask[b, 0, y * P : (y + 1) * P, x * P : (x + 1) * P] = True
    return mask


@pytest.fixture(params=[True, False], ids=["normalised", "plain"])
def case(
    request: pytest.FixtureRequest,
    tiny_autoencoder: Callable[..., mae.MaskedAutoencoder],
    random_plan: Callable[..., mae.MaskPlan],
) -> tuple[mae.MaskedAutoencoder, torch.Tensor, mae.MaskPlan, Reconstruction]:
    model = tiny_autoencoder(scattered=True, image_size=(8, 24), normalize_pixels=request.param)
    images = torch.randn(3, 3, 8, 24) + 1
    plan = random_plan(3, model.grid)
    return model, images, plan, reconstruct(model, images, plan)


def test_what_went_in_is_shown_as_it_was(case: tuple) -> None:
    _, images, _, parts = case
    assert torch.equal(parts.original, images)


def test_visible_pixels_are_pasted_bit_for_bit(case: tuple) -> None:
    _, images, plan, parts = case
    seen = ~hidden_pixels(plan).expand_as(images)
    assert torch.equal(parts.pasted[seen], images[seen])
    assert torch.equal(parts.masked[seen], images[seen])


def test_the_masked_panel_shows_nothing_of_what_is_hidden(case: tuple) -> None:
    model, images, plan, parts = case
    hidden = hidden_pixels(plan).expand_as(images)
    assert (parts.masked[hidden] == 0).all()
    changed = reconstruct(model, images.masked_fill(hidden, 123.0), plan)
    assert torch.equal(changed.masked, parts.masked)


def test_the_prediction_is_shown_only_where_patches_are_hidden(case: tuple) -> None:
    _, images, plan, parts = case
    hidden = hidden_pixels(plan).expand_as(images)
    assert (parts.predicted[~hidden] == 0).all()
    assert torch.equal(parts.pasted[hidden], parts.predicted[hidden])
    assert (parts.predicted[hidden] != 0).float().mean() > 0.9


def test_each_prediction_stands_in_its_own_place(case: tuple) -> None:
    model, images, plan, parts = case
    prediction = model.eval()(images, plan).prediction
    for b, row in enumerate(plan.masked.tolist()):
        for m, patch in enumerate(row):
            y, x = divmod(patch, plan.grid[1])
            cut = slice(y * P, (y + 1) * P), slice(x * P, (x + 1) * P)
            # A patch vector is (row, column, channel).
            expected = prediction[b, m].reshape(P, P, 3).permute(2, 0, 1)
            if model.normalize_pixels:
                truth = images[b, :, *cut]
                expected = expected * (truth.var() + 1e-6).sqrt() + truth.mean()
            assert torch.allclose(parts.predicted[b, :, *cut], expected, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_model_is_left_alone(
    tiny_autoencoder: Callable[..., mae.MaskedAutoencoder], random_plan: Callable[..., mae.MaskPlan], training: bool
) -> None:
    model = tiny_autoencoder().train(training)
    parts = reconstruct(model, torch.randn(2, 3, 16, 16), random_plan(2, model.grid))
    assert model.training is training
    assert not parts.predicted.requires_grad
