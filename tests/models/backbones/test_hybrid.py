"""The feature map of a CNN as patches."""

from __future__ import annotations

import math

import pytest
import torch

import mae
from mae.models.backbones.encoder import Encoder
from mae.models.layers.patches import patchify, unpatchify

SMALL = {"image_size": 32, "width": 32, "depth": 2, "heads": 2, "cnn": {"name": "resnet26d", "level": 1}}


@pytest.fixture(params=["learned", "sincos"])
def encoder(request) -> Encoder:
    torch.manual_seed(0)
    return Encoder("vit_tiny_patch16_224", **SMALL, positions=request.param).eval()


@pytest.mark.parametrize(("level", "grid", "patch"), [(1, (8, 8), 4), (2, (4, 4), 8)])
def test_levels_of_a_small_one(level, grid, patch):
    encoder = Encoder("vit_tiny_patch16_224", **{**SMALL, "cnn": {"name": "resnet26d", "level": level}}, in_channels=1)
    assert (encoder.grid, encoder.patch_size) == (grid, patch)
    assert encoder(torch.randn(2, 1, 32, 32)).shape == (2, 1 + grid[0] * grid[1], 32)


@pytest.mark.parametrize(
    ("name", "grid", "millions"),
    [
        ("vit_tiny_r_s16_p8_224", (7, 7), 6.1),
        ("vit_small_r26_s32_224", (7, 7), 36.1),
        ("vit_base_r26_s32_224", (7, 7), 100.6),
        ("vit_base_r50_s16_224", (14, 14), 97.9),
    ],
)
def test_those_of_timm(name, grid, millions):
    with torch.device("meta"):
        encoder = Encoder(name, 224, positions="learned", init="torch")
    assert (encoder.grid, encoder.patch_size) == (grid, 224 // grid[0])
    parameters = sum(parameter.numel() for parameter in encoder.parameters()) + 10 * (encoder.width + 1)
    assert parameters / 1e6 == pytest.approx(millions, abs=0.06)


def test_its_receptive_field_reaches_into_other_cells(encoder):
    # Why hiding embeddings would leak: FAMILY's reason for hiding pixels.
    images = torch.randn(1, 3, 32, 32, requires_grad=True)
    encoder.embed(images)[0, 27].sum().backward()
    inside = patchify(images.grad, 4)[0, 27].abs().sum()
    assert inside < 0.9 * images.grad.abs().sum()


def test_a_hidden_pixel_leaves_the_latent_bit_for_bit_unchanged(encoder, random_plan):
    images, plan = torch.randn(2, 3, 32, 32), random_plan(2, encoder.grid)
    patches = patchify(images, 4)
    patches[plan.mask] = math.nan
    spoilt = unpatchify(patches, encoder.grid, 4)

    assert torch.equal(encoder(spoilt, plan), encoder(images, plan))


def test_without_a_plan_and_with_all_patches_tokens_are_those_of_timm(encoder, whole_plan):
    images = torch.randn(2, 3, 32, 32)
    tokens = encoder(images)
    assert torch.equal(tokens, encoder.vit.forward_features(images))
    torch.testing.assert_close(encoder(images, whole_plan(2, encoder.grid)), tokens, atol=1e-5, rtol=1e-5)


def test_it_is_pretrained_on_pixels_and_every_parameter_learns(random_plan):
    model = mae.create_autoencoder(
        "vit_tiny_patch16_224", **SMALL, positions="learned", decoder_width=16, decoder_depth=1, decoder_heads=2
    )
    out = model(torch.randn(2, 3, 32, 32), random_plan(2, model.grid))

    assert out.prediction.shape == (2, 48, 48)
    out.loss.backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_it_is_saved_and_loaded_also_for_other_sizes(encoder, tmp_path):
    mae.save(encoder, tmp_path)
    images = torch.randn(2, 3, 32, 32)

    assert torch.equal(mae.load_encoder(tmp_path).eval()(images), encoder(images))
    assert mae.load_encoder(tmp_path, image_size=48).grid == (12, 12)


def test_the_cnn_is_layer_0(encoder):
    layers = {encoder.layer_of(name) for name, _ in encoder.named_parameters() if "patch_embed.backbone" in name}
    assert layers == {0}


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        (
            "vit_small_r26_s32_224",
            {"image_size": 32},
            r"data\.image_size=32x32 leaves vit_small_r26_s32_224 one token.*model=hybrid_32",
        ),
        ("vit_small_r26_s32_224", {"image_size": 100}, "100x100 is not divisible into the 4x4 tokens"),
        (
            "vit_small_r26_s32_224",
            {"image_size": 64, "patch_size": 16},
            r"model\.patch_size=16 does not fit.*32 pixels",
        ),
        ("vit_tiny_patch16_224", {**SMALL, "cnn": {"name": "resnet27", "level": 1}}, "'resnet27' is not a timm model"),
        ("vit_tiny_patch16_224", {**SMALL, "cnn": {"name": "resnet18", "level": 9}}, "no feature map of this level"),
        ("vit_tiny_patch16_224", {**SMALL, "cnn": {"name": "resnet18"}}, "is not a name and a level"),
    ],
)
def test_sizes_that_leave_nothing_to_attend_to_are_refused(name, changes, says):
    with pytest.raises(ValueError, match=says):
        Encoder(name, **changes)
