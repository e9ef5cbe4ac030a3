from __future__ import annotations

import math

import pytest
import torch

import mae
from mae.models.decoders import SelfAttentionDecoder
from mae.models.layers.positions import sincos_positions

GRID = (2, 6)


@pytest.fixture(params=[0, 1, 3], ids=lambda count: f"{count} prefix tokens")
def decoder(request) -> SelfAttentionDecoder:
    decoder = SelfAttentionDecoder(32, 12, GRID, request.param, width=16, depth=2, heads=2)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return decoder


@pytest.fixture
def plan(random_plan) -> mae.MaskPlan:
    return random_plan(2, GRID, 0.5)


def draw_latent(decoder: SelfAttentionDecoder) -> torch.Tensor:
    return torch.randn(2, decoder.num_prefix_tokens + 6, 32)


def test_hidden_patches_are_predicted_in_the_order_of_the_plan(decoder, plan):
    latent = draw_latent(decoder)
    turned = mae.MaskPlan(plan.keep, plan.masked.flip(1), plan.mask, plan.grid)

    prediction = decoder(latent, plan)

    assert prediction.shape == (2, 6, 12)
    assert torch.equal(decoder(latent, turned).flip(1), prediction)


def test_hidden_patches_are_told_apart_by_their_position(decoder, plan):
    # They start from one mask token, so with equal positions all would be predicted alike.
    prediction = decoder(draw_latent(decoder), plan)

    distance = torch.cdist(prediction, prediction) + torch.eye(6)
    assert distance.min() > 1e-2


def test_every_encoded_patch_goes_back_to_its_place_whatever_its_order(decoder, plan):
    latent, prefix = draw_latent(decoder), decoder.num_prefix_tokens
    turned = mae.MaskPlan(plan.keep.flip(1), plan.masked, plan.mask, plan.grid)
    flipped = torch.cat([latent[:, :prefix], latent[:, prefix:].flip(1)], dim=1)

    torch.testing.assert_close(decoder(flipped, turned), decoder(latent, plan), atol=1e-6, rtol=1e-6)
    assert (decoder(flipped, plan) - decoder(latent, plan)).abs().max() > 1e-2


def test_every_encoded_token_class_and_registers_too_helps_every_prediction(decoder, plan):
    latent = draw_latent(decoder).requires_grad_()

    for patch in range(6):
        (gradient,) = torch.autograd.grad(decoder(latent, plan)[0, patch, 0], latent)
        assert (gradient[0].abs().amax(dim=-1) > 0).all()
        assert not gradient[1].any()


def test_positions_are_a_fixed_table_stored_with_the_weights(decoder):
    assert torch.equal(decoder.positions, sincos_positions(GRID, 16, decoder.num_prefix_tokens))
    assert not decoder.positions[:, : decoder.num_prefix_tokens].any()
    assert "positions" in decoder.state_dict()
    assert "positions" not in dict(decoder.named_parameters())


def test_predictions_under_autocast_follow_those_in_float32(decoder, plan):
    latent = draw_latent(decoder)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = decoder(latent, plan)
    torch.testing.assert_close(rounded.float(), decoder(latent, plan), atol=0.1, rtol=0.1)


def test_weights_start_as_in_the_paper():
    decoder = SelfAttentionDecoder(32, 48, (4, 4), 1, width=256, depth=1, heads=2)

    for name, part in (("embed", decoder.embed), ("predict", decoder.predict), ("qkv", decoder.blocks[0].attn.qkv)):
        bound = math.sqrt(6 / (part.in_features + part.out_features))
        assert 0.97 * bound < part.weight.abs().max().item() <= bound, name
        assert not part.bias.any(), name
    assert 0.015 < decoder.mask_token.std().item() < 0.025


def test_biases_and_epsilon_are_those_asked_for():
    decoder = SelfAttentionDecoder(32, 48, GRID, 1, width=16, depth=1, heads=2, qkv_bias=False, norm_eps=1e-4)

    assert decoder.blocks[0].attn.qkv.bias is None
    assert decoder.blocks[0].attn.proj.bias is not None
    assert {part.eps for part in decoder.modules() if isinstance(part, torch.nn.LayerNorm)} == {1e-4}


def test_a_width_that_the_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match=r"decoder\.width=32 is not divisible by decoder\.heads=5"):
        SelfAttentionDecoder(32, 48, (4, 4), 1, width=32, depth=1, heads=5)
