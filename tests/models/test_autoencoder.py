from __future__ import annotations

import math

import pytest
import torch

from mae.models.layers.patches import patchify, unpatchify

KINDS = {
    "class token": {},
    "plain pixels": {"normalize_pixels": False},
    "learned positions": {"positions": "learned"},
    "registers": {"options": {"reg_tokens": 2}, "positions": "learned"},
    "no class token": {"name": "vit_base_patch16_siglip_gap_224"},
    "layer scale": {"name": "vit_small_patch14_reg4_dinov2", "positions": "learned"},
    "attention pooling in timm": {"name": "vit_base_patch16_siglip_224", "positions": "learned"},
    "average pooling in timm": {"name": "vit_medium_patch16_gap_240"},
}


@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)
def test_every_parameter_that_learns_gets_a_gradient(tiny_autoencoder, random_plan, changes):
    # Plain DDP waits forever for one that does not.
    model = tiny_autoencoder(**changes).train()
    model(torch.randn(2, 3, 16, 16), random_plan(2, (4, 4))).loss.backward()

    without = [
        name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None
    ]
    still = [
        name for name, parameter in model.named_parameters() if parameter.requires_grad and not parameter.grad.any()
    ]
    assert without == []
    assert still == []


@pytest.mark.parametrize(("channels", "size"), [(3, (16, 16)), (1, (8, 24))])
def test_targets_are_the_hidden_patches_in_the_order_of_the_plan(tiny_autoencoder, random_plan, channels, size):
    model = tiny_autoencoder(image_size=size, in_channels=channels, normalize_pixels=False)
    images, plan = torch.randn(2, channels, *size), random_plan(2, model.grid)

    out = model(images, plan)

    assert out.plan is plan
    assert out.prediction.shape == out.target.shape == (2, plan.masked.shape[1], 16 * channels)
    for image in range(2):
        for place, patch in enumerate(plan.masked[image].tolist()):
            top, left = patch // model.grid[1] * 4, patch % model.grid[1] * 4
            pixels = images[image, :, top : top + 4, left : left + 4]
            assert torch.equal(out.target[image, place], pixels.permute(1, 2, 0).flatten())


def test_normalised_targets_have_mean_zero_and_unbiased_variance_one(tiny_autoencoder, random_plan):
    target = tiny_autoencoder().target(torch.randn(2, 3, 16, 16) * 3 + 2, random_plan(2, (4, 4)))

    assert target.mean(dim=-1).abs().max() < 1e-5
    torch.testing.assert_close(target.square().sum(dim=-1) / 47, torch.ones(2, 12), atol=1e-4, rtol=0)


@pytest.mark.parametrize("normalize", [True, False])
def test_the_loss_is_the_mean_squared_error_over_hidden_patches(tiny_autoencoder, random_plan, normalize):
    out = tiny_autoencoder(normalize_pixels=normalize)(torch.randn(2, 3, 16, 16), random_plan(2, (4, 4)))

    per_patch = (out.prediction.double() - out.target.double()).square().sum(dim=-1) / 48
    assert out.loss.item() == pytest.approx(per_patch.sum().item() / 24, rel=1e-6)


@pytest.mark.parametrize("normalize", [True, False])
def test_visible_pixels_never_enter_the_target(tiny_autoencoder, random_plan, normalize):
    model, plan = tiny_autoencoder(normalize_pixels=normalize), random_plan(2, (4, 4))
    images = torch.randn(2, 3, 16, 16, requires_grad=True)

    (model.target(images, plan) * torch.randn(2, 12, 48)).sum().backward()

    reached = patchify(images.grad, 4).abs().amax(dim=-1) > 0
    assert torch.equal(reached, plan.mask)


def test_hidden_pixels_never_enter_the_prediction(tiny_autoencoder, random_plan):
    model, plan = tiny_autoencoder(), random_plan(2, (4, 4))
    images = torch.randn(2, 3, 16, 16)
    patches = patchify(images, 4)
    patches[plan.mask] = math.nan

    spoilt = model(unpatchify(patches, (4, 4), 4), plan)

    assert torch.equal(spoilt.prediction, model(images, plan).prediction)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("images_dtype", [torch.float32, torch.bfloat16])
def test_loss_and_target_are_float32_under_autocast(tiny_autoencoder, random_plan, images_dtype, normalize):
    model, plan = tiny_autoencoder(normalize_pixels=normalize), random_plan(2, (4, 4))
    images = (torch.randn(2, 3, 16, 16) + 2).to(images_dtype)

    with torch.autocast("cpu", torch.bfloat16):
        out = model(images, plan)

    assert out.prediction.dtype == torch.bfloat16
    assert (out.loss.dtype, out.target.dtype) == (torch.float32, torch.float32)
    exact_target = model.target(images.double(), plan)
    torch.testing.assert_close(out.target.double(), exact_target, atol=1e-4, rtol=1e-4)
    exact_loss = (out.prediction.double() - exact_target).square().mean().item()
    assert out.loss.item() == pytest.approx(exact_loss, rel=1e-5)


def test_a_pass_is_a_function_of_images_and_plan(tiny_autoencoder, random_plan):
    model, images = tiny_autoencoder().train(), torch.randn(2, 3, 16, 16)

    first, second = model(images, random_plan(2, (4, 4))), model(images, random_plan(2, (4, 4)))

    assert torch.equal(first.loss, second.loss)
    assert not torch.equal(first.loss, model(images, random_plan(2, (4, 4), seed=1)).loss)


def test_a_few_steps_of_descent_lower_the_loss(tiny_autoencoder, random_plan):
    model, images, plan = tiny_autoencoder().train(), torch.randn(4, 3, 16, 16), random_plan(4, (4, 4))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(30):
        loss = model(images, plan).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_an_unknown_decoder_lists_the_known(tiny_autoencoder):
    with pytest.raises(ValueError, match=r"decoder\.name='cross' is unknown: choose one of .*self_attention"):
        tiny_autoencoder(decoder="cross")
