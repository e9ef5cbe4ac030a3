from __future__ import annotations

import pytest
import torch

from mae.objectives.masked_mse import masked_mse


def test_the_loss_is_the_mean_over_images_patches_and_values():
    prediction, target = torch.randn(2, 3, 4), torch.randn(2, 3, 4)

    total = 0.0
    for guess, truth in zip(prediction.flatten().tolist(), target.flatten().tolist(), strict=True):
        total += (guess - truth) ** 2
    assert masked_mse(prediction, target).item() == pytest.approx(total / 24, rel=1e-6)


def test_the_gradient_is_twice_the_error_over_the_number_of_values():
    prediction, target = torch.randn(2, 3, 4, requires_grad=True), torch.randn(2, 3, 4)

    masked_mse(prediction, target).backward()

    torch.testing.assert_close(prediction.grad, 2 * (prediction - target).detach() / 24)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("target_dtype", [torch.bfloat16, torch.float32])
def test_half_precision_predictions_are_compared_in_float32(autocast, target_dtype):
    prediction, target = (torch.randn(2, 3, 48) + 8).bfloat16(), torch.randn(2, 3, 48).to(target_dtype)

    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = masked_mse(prediction, target)

    assert loss.dtype == torch.float32
    exact = (prediction.double() - target.double()).square().mean().item()
    assert loss.item() == pytest.approx(exact, rel=1e-6)


def test_float64_stays_float64():
    values = torch.randn(1, 2, 4, dtype=torch.float64)
    assert masked_mse(values, values + 1).dtype == torch.float64
