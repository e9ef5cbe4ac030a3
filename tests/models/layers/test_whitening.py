from __future__ import annotations

import pytest
import torch

from mae.models.layers.whitening import Whitening


def stretched(images: int, width: int = 16, seed: int = 0) -> torch.Tensor:
    """Return features of which three directions, none of them an axis, hold nearly all variance, far from zero."""
    generator = torch.Generator().manual_seed(seed)
    turn, _ = torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(9)))
    scale = torch.full((width,), 0.03)
    scale[:3] = torch.tensor([5.0, 3.0, 2.0])
    return (torch.randn(images, width, generator=generator) * scale) @ turn + 7.0


def test_whitened_features_have_no_mean_no_correlation_and_the_variance_of_one_also_on_new_images():
    whitening = Whitening.fit(stretched(4_000))

    white = whitening(stretched(4_000, seed=1))
    assert white.dtype == torch.float32
    assert white.mean(dim=0).abs().max() < 0.1
    torch.testing.assert_close(torch.cov(white.T), torch.eye(16), atol=0.12, rtol=0)


def test_a_feature_stays_near_its_place_whatever_its_unit():
    features = torch.randn(500, 4) * torch.tensor([1e-3, 1.0, 10.0, 1e3])
    white = Whitening.fit(features)(features)

    torch.testing.assert_close(white, (features - features.mean(0)) / features.std(0), atol=0.2, rtol=0.1)


def test_fewer_images_than_features_give_numbers_of_size_one():
    features = stretched(10, width=64)
    white = Whitening.fit(features)(stretched(500, width=64, seed=1))

    assert white.isfinite().all()
    assert 0.3 < white.std(dim=0).mean() < 3


def test_what_is_constant_or_a_sum_of_others_blows_nothing_up():
    """A last norm of random weights makes the features of every image sum to zero, but for rounding."""
    features = stretched(1_000)
    features[:, 15] = -features[:, :15].sum(dim=1)
    features[:, 4] = 3.0
    whitening = Whitening.fit(features)

    other = stretched(1_000, seed=1)
    other[:, 15] = -other[:, :15].sum(dim=1)
    other[:, 4] = 3.0
    white = whitening(other)
    assert not white[:, 4].any()
    assert white.abs().max() < 10


def test_the_device_type_and_state_are_those_of_a_module():
    whitening = Whitening.fit(stretched(50).double())
    again = Whitening(16)
    again.load_state_dict(whitening.state_dict())

    assert {key: value.dtype for key, value in again.state_dict().items()} == dict.fromkeys(
        ("mean", "matrix"), torch.float32
    )
    assert torch.equal(again(stretched(5)), whitening(stretched(5)))
    assert torch.equal(Whitening(3)(torch.eye(3)), torch.eye(3))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.zeros(1, 4), r"\(1, 4\) cannot be whitened: give \(N, D\) of two images or more"),
        (torch.zeros(5, 2, 4), r"\(5, 2, 4\) cannot be whitened: give \(N, D\)"),
        (torch.tensor([[1.0], [float("nan")]]), "not finite cannot be whitened: training diverged"),
    ],
)
def test_what_cannot_be_whitened_is_refused(features, message):
    with pytest.raises(ValueError, match=message):
        Whitening.fit(features)
