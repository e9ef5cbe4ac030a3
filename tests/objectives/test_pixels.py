from __future__ import annotations

import pytest
import torch

from mae.objectives.pixels import denormalize_patches, normalize_patches, patch_statistics


def test_the_variance_divides_by_one_less_than_the_number_of_values():
    # Mean 2, squared deviations 4 + 0 + 0 + 4 over 3; dividing by 4 would give another number.
    normalized = normalize_patches(torch.tensor([[0.0, 2.0, 2.0, 4.0]], dtype=torch.float64))

    outer = 2 / (8 / 3 + 1e-6) ** 0.5
    assert normalized[0].tolist() == pytest.approx([-outer, 0, 0, outer], abs=1e-12)


def test_the_millionth_stands_inside_the_root():
    # The unbiased variance of (-d, d) is 2 d^2, here 1e-6.
    d = 5e-7**0.5
    _, deviation = patch_statistics(torch.tensor([[-d, d]], dtype=torch.float64))

    assert deviation.item() == pytest.approx(2e-6**0.5, rel=1e-9)


def test_each_patch_is_normalised_by_itself():
    patches = torch.randn(2, 5, 48, dtype=torch.float64) * torch.linspace(0.5, 9, 5).reshape(1, 5, 1) + 3

    normalized = normalize_patches(patches)

    torch.testing.assert_close(normalized.mean(dim=-1), torch.zeros(2, 5, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(normalized.var(dim=-1), torch.ones(2, 5, dtype=torch.float64), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_the_inverse_restores_the_pixels(dtype, tolerance):
    patches = torch.randn(2, 5, 48, dtype=dtype) * 4 + 1

    torch.testing.assert_close(
        denormalize_patches(normalize_patches(patches), patches), patches, atol=tolerance, rtol=tolerance
    )


def test_a_patch_of_one_colour_becomes_zero_and_not_infinite():
    # Without the millionth, the rounding of the mean would be blown up to one.
    assert normalize_patches(torch.full((1, 48), 0.7)).abs().max() < 1e-3


def test_half_precision_pixels_are_normalised_in_float32():
    patches = (torch.randn(3, 48) + 20).bfloat16()

    normalized = normalize_patches(patches)

    assert normalized.dtype == torch.float32
    torch.testing.assert_close(normalized.double(), normalize_patches(patches.double()), atol=1e-4, rtol=1e-4)
