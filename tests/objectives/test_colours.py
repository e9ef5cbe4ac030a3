from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mae.models.layers.patches import patchify
from mae.objectives.colours import COLOURS, colour_labels, colour_loss, colour_patches


def plain(red: float, green: float, blue: float, side: int = 4) -> torch.Tensor:
    return torch.tensor([red, green, blue], dtype=torch.float32).repeat(side * side).reshape(1, 1, -1)


@pytest.mark.parametrize(
    ("colour", "label"),
    [((1, 0.5, 0), 480), ((0, 0, 0), 0), ((1, 1, 1), 511), ((0.124, 0.126, 0.99), 15), ((-0.01, 1.01, 0.3), 58)],
)
def test_colours_in_three_bits_a_channel(colour: tuple[float, float, float], label: int) -> None:
    assert colour_labels(plain(*colour)).tolist() == [[[label]]]


@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 2**31))
def test_labels_are_those_of_loops_over_pixels_and_are_shown_by_patches_of_the_same(cells, side, seed) -> None:
    P = cells * side
    images = torch.rand(2, 3, 2 * P, P, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    labels = colour_labels(patchify(images, P), cells)

    for b in range(2):
        for row in range(2):
            for cell in range(cells * cells):
                top, left = row * P + cell // cells * side, cell % cells * side
                means = [images[b, c, top : top + side, left : left + side].mean().item() for c in range(3)]
                r, g, blue = (min(7, math.floor(8 * mean)) for mean in means)
                assert labels[b, row, cell] == 64 * r + 8 * g + blue
    assert torch.equal(colour_labels(colour_patches(labels, P), cells), labels)


def test_the_loss_is_the_mean_cross_entropy_in_float32() -> None:
    logits, labels = torch.randn(2, 3, 4, COLOURS), torch.randint(COLOURS, (2, 3, 4))
    picked = logits.double().log_softmax(-1).gather(-1, labels.unsqueeze(-1))

    with torch.autocast("cpu", torch.bfloat16):
        loss = colour_loss(logits, labels)

    assert loss.dtype == torch.float32
    rounded = logits.bfloat16()
    exact = -rounded.double().log_softmax(-1).gather(-1, labels.unsqueeze(-1)).mean()
    torch.testing.assert_close(colour_loss(rounded, labels).double(), exact, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(loss.double(), -picked.mean(), atol=1e-5, rtol=1e-5)
    assert colour_loss(torch.zeros(1, 1, 1, COLOURS), labels[:1, :1, :1]).item() == pytest.approx(math.log(512))


def test_patches_that_hold_no_colours_are_refused() -> None:
    with pytest.raises(ValueError, match="patches of 16 values cannot be cut into 1x1 colours"):
        colour_labels(torch.rand(1, 1, 16))
    with pytest.raises(ValueError, match="patches of 27 values cannot be cut into 4x4 colours"):
        colour_labels(torch.rand(1, 1, 27), 4)
