"""What the objectives say of themselves."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mae.models.layers.patches import patchify
from mae.objectives.colours import COLOURS
from mae.objectives.corrupted_patches import CorruptedPatches
from mae.objectives.objective import OBJECTIVES, Objective, PixelScale, Trivial
from mae.objectives.pixels import Pixels

ALL = (
    Pixels(),
    Pixels(normalize=False),
    *(CorruptedPatches(target) for target in ("mean_colour", "colours_4x4", "pixels")),
)
SCALE = PixelScale((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))


def test_a_prediction_as_wide_as_the_objective_asks_for_is_scored_and_shown() -> None:
    for objective in ALL:
        hidden = SCALE.standardize(torch.rand(2, 5, 8 * 8 * 3))
        prediction = objective.unpack(torch.randn(2, 5, objective.width(8, 3)))

        target = objective.target(hidden, SCALE)

        assert objective.loss(prediction, target).shape == ()
        assert objective.as_patches(prediction, hidden, SCALE).shape == hidden.shape


def test_a_perfect_prediction_is_shown_as_the_patches_themselves() -> None:
    hidden = torch.randn(2, 5, 48, dtype=torch.float64)
    for objective in (Pixels(), Pixels(normalize=False), CorruptedPatches("pixels")):
        target = objective.target(hidden, SCALE)
        torch.testing.assert_close(objective.as_patches(target, hidden, SCALE), hidden)
        assert objective.loss(target, target) == 0


def test_the_loss_of_certain_colours_is_zero_and_they_are_shown_by_their_bins() -> None:
    for target, cells in (("mean_colour", 1), ("colours_4x4", 4)):
        objective, side = CorruptedPatches(target), 8 // cells
        pixels = torch.rand(2, 3, cells, cells).repeat_interleave(side, 2).repeat_interleave(side, 3)
        hidden = SCALE.standardize(patchify(pixels, 8))
        labels = objective.target(hidden, SCALE)
        certain = 100 * torch.nn.functional.one_hot(labels, COLOURS).float()

        assert objective.loss(certain, labels) < 1e-6
        shown = SCALE.unit(objective.as_patches(certain, hidden, SCALE))
        assert (shown - patchify(pixels, 8)).abs().max() < 1 / 16 + 1e-4  # a bin is an eighth wide


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**31))
def test_the_scale_of_pixels_is_that_of_channels_and_has_an_inverse(channels: int, side: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    mean, std = torch.rand(2, channels, generator=draw, dtype=torch.float64)
    scale = PixelScale(mean.tolist(), (std + 0.1).tolist())
    images = torch.randn(2, channels, 2 * side, side, generator=draw, dtype=torch.float64)

    pixels = scale.unit(patchify(images, side))

    expected = patchify(images * (std + 0.1).view(-1, 1, 1) + mean.view(-1, 1, 1), side)
    assert torch.equal(pixels, expected)
    torch.testing.assert_close(scale.standardize(pixels), patchify(images, side))
    assert scale.unit(patchify(images, side).float()).dtype == torch.float32


def test_a_trivial_loss_is_that_of_the_objective() -> None:
    figures = {"patch_mean_loss": 0.9, "label_entropy": 4.2}
    assert Pixels().trivial(figures) == Trivial(0.9, "predicting each patch's mean")
    assert Pixels().trivial({}) == Trivial(1.0, "predicting each patch's mean")
    assert Pixels(normalize=False).trivial(figures) is None
    assert CorruptedPatches().trivial(figures) == Trivial(4.2, "knowing how frequent each colour is")
    assert CorruptedPatches().trivial({}) is None


def test_the_entropy_of_colours_is_that_of_their_frequencies() -> None:
    pixels = torch.zeros(1, 3, 4, 16)
    pixels[..., 4:8], pixels[..., 8:] = 0.5, 1  # a quarter, a quarter and a half
    patches = patchify(pixels, 4)
    expected = 0.25 * math.log(4) * 2 + 0.5 * math.log(2)

    assert CorruptedPatches().figures([patches]) == {"label_entropy": pytest.approx(expected)}
    assert CorruptedPatches("colours_4x4").figures([patches, patches]) == {"label_entropy": pytest.approx(expected)}
    assert CorruptedPatches("pixels").figures([patches]) == Pixels().figures([patches]) == {}


def test_flat_patches_worry_those_who_normalise() -> None:
    assert Pixels().concern({"flat_patches": 0.5}) is None
    text = Pixels().concern({"flat_patches": 0.51})
    assert text is not None
    assert text.startswith("51% of the patches")
    assert "objective.normalize=false" in text
    assert Pixels(normalize=False).concern({"flat_patches": 1.0}) is None
    assert CorruptedPatches().concern({"flat_patches": 1.0}) is None


def test_the_caption_tells_what_the_model_did_not_predict() -> None:
    assert "its own true mean and deviation" in Pixels().caption
    assert "true mean" not in Pixels(normalize=False).caption
    assert "mask embedding" in CorruptedPatches().caption


def test_an_objective_takes_its_masking_and_no_other() -> None:
    pixels, colours = (OBJECTIVES.create(name=name) for name in OBJECTIVES)
    pixels.check_masking("blocks", "patches")
    colours.check_masking("corruption", "embeddings")
    with pytest.raises(ValueError, match="masking=corruption does not fit objective=pixels: it takes masking=random"):
        pixels.check_masking("corruption", "embeddings")
    with pytest.raises(ValueError, match="masking=random does not fit objective=masked_patch_prediction"):
        colours.check_masking("random", "patches")


@pytest.mark.parametrize(
    ("target", "images", "says"),
    [
        ("mean_colour", {"channels": 1}, r"predicts colours, and data\.channels=1: data\.channels=3 shows grey"),
        ("colours_4x4", {"patch_size": 2}, r"cuts patches into 4x4, and model\.patch_size=2"),
        ("mean_colour", {"bits": 16}, r"counts colours of 8 bits, and data\.bits=16: data\.bits=8 reads"),
    ],
)
def test_patches_without_such_colours_are_refused(target: str, images: dict[str, int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        CorruptedPatches(target).check(**{"patch_size": 4, "channels": 3, **images})
    CorruptedPatches("pixels").check(**{"patch_size": 4, "channels": 3, **images})
    CorruptedPatches(target).check(patch_size=4, channels=3, bits=8)


def test_an_objective_of_ones_own_needs_three_methods_and_has_answers_to_the_rest() -> None:
    class Mean(Objective):
        def width(self, patch_size: int, channels: int) -> int:
            return 1

        def target(self, hidden: torch.Tensor, scale: PixelScale) -> torch.Tensor:
            return hidden.mean(dim=-1, keepdim=True)

        def loss(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return (prediction - target).abs().mean()

        def as_patches(self, prediction: torch.Tensor, hidden: torch.Tensor, scale: PixelScale) -> torch.Tensor:
            return prediction.expand_as(hidden)

    mean = Mean()
    mean.check(patch_size=4, channels=9, bits=16)
    mean.check_masking("random", "patches")
    assert mean.title == "Mean" and mean.masking == "random" and mean.what == "hidden patches"
    assert mean.trivial({"patch_mean_loss": 1.0}) is None and mean.concern({"flat_patches": 1.0}) is None
