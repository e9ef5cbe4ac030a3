from __future__ import annotations

import copy
import math
from functools import partial

import pytest
import timm
import torch
from torch import nn

import mae
from mae.models.backbones.encoder import Encoder
from mae.models.layers.patches import patchify, unpatchify

SMALL = {"image_size": 16, "patch_size": 4, "width": 32, "depth": 2, "heads": 2}

KINDS = {
    "class token": {"name": "vit_tiny_patch16_224"},
    "rectangle, one channel": {"name": "vit_tiny_patch16_224", "image_size": (8, 24), "in_channels": 1},
    "learned positions": {"name": "vit_tiny_patch16_224", "positions": "learned"},
    "registers": {"name": "vit_tiny_patch16_224", "positions": "learned", "options": {"reg_tokens": 2}},
    "no class token": {"name": "vit_base_patch16_siglip_gap_224", "positions": "learned"},
    "positions on patches alone": {"name": "deit3_small_patch16_224", "positions": "learned"},
    "registers, layer scale": {"name": "vit_small_patch14_reg4_dinov2", "positions": "learned"},
    "a norm before the blocks": {"name": "vit_base_patch16_clip_224"},
}


@pytest.fixture(scope="module", params=KINDS.values(), ids=KINDS)
def built(request) -> Encoder:
    """Encoders whose every weight matters: biases not zero, norms and scales not one."""
    torch.manual_seed(0)
    encoder = Encoder(**{**SMALL, **request.param}).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return encoder


@pytest.fixture
def encoder(built) -> Encoder:
    """One of them, for one test."""
    return copy.deepcopy(built)


def draw_images(encoder: Encoder, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, encoder.in_channels, *encoder.image_size)


def timm_twin(encoder: Encoder) -> nn.Module:
    """The model that timm builds from its own arguments, with the encoder's weights."""
    config = encoder.config
    vit = timm.create_model(
        config["name"],
        img_size=encoder.image_size,
        in_chans=encoder.in_channels,
        patch_size=4,
        embed_dim=32,
        depth=2,
        num_heads=2,
        num_classes=0,
        global_pool="",
        fc_norm=False,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        **config["options"],
    )
    vit.load_state_dict(encoder.vit.state_dict())
    return vit.eval()


def test_without_a_plan_tokens_equal_those_of_timm(encoder):
    images = draw_images(encoder)
    assert torch.equal(encoder(images), timm_twin(encoder).forward_features(images))


def test_a_plan_that_keeps_every_patch_equals_no_plan(encoder, whole_plan):
    images = draw_images(encoder)
    torch.testing.assert_close(encoder(images, whole_plan(2, encoder.grid)), encoder(images), atol=1e-5, rtol=1e-5)


def test_tokens_without_one_patch_are_those_of_timm_with_its_token_taken_out(encoder):
    images, L, hidden = draw_images(encoder), encoder.grid[0] * encoder.grid[1], 5
    noise = torch.arange(float(L)).expand(2, -1).clone()
    noise[:, hidden] = 1000
    plan = mae.MaskPlan.from_noise(noise, encoder.grid, 1 / L)

    vit = timm_twin(encoder)
    tokens = vit._pos_embed(vit.patch_embed(images))
    place = encoder.num_prefix_tokens + hidden
    tokens = torch.cat([tokens[:, :place], tokens[:, place + 1 :]], dim=1)
    expected = vit.norm(vit.blocks(vit.norm_pre(tokens)))

    torch.testing.assert_close(encoder(images, plan), expected, atol=1e-5, rtol=1e-5)


def test_a_hidden_pixel_leaves_the_latent_bit_for_bit_unchanged(encoder, random_plan):
    images, plan = draw_images(encoder), random_plan(2, encoder.grid)

    patches = patchify(images, 4)
    patches[plan.mask] = math.nan
    spoilt = unpatchify(patches, encoder.grid, 4)

    assert torch.equal(encoder(spoilt, plan), encoder(images, plan))


def test_every_visible_patch_reaches_the_latent(encoder, random_plan):
    images, plan = draw_images(encoder).requires_grad_(), random_plan(2, encoder.grid)

    encoder(images, plan)[..., 0].sum().backward()

    gradient = patchify(images.grad, 4).abs().amax(dim=-1)
    assert torch.equal(gradient > 0, ~plan.mask)


def test_tokens_follow_the_order_of_the_plan(encoder, random_plan):
    images, plan, prefix = draw_images(encoder), random_plan(2, encoder.grid, 0.5), encoder.num_prefix_tokens
    turned = mae.MaskPlan(plan.keep.flip(1), plan.masked, plan.mask, plan.grid)

    tokens, flipped = encoder(images, plan), encoder(images, turned)

    torch.testing.assert_close(flipped[:, prefix:].flip(1), tokens[:, prefix:], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(flipped[:, :prefix], tokens[:, :prefix], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("positions", ["sincos", "learned"])
def test_where_a_patch_lies_matters(positions, masked, random_plan):
    encoder = Encoder("vit_tiny_patch16_224", **SMALL, positions=positions).eval()
    images, plan = draw_images(encoder), random_plan(2, encoder.grid, 0.5)
    # The visible patches swap contents among themselves, so a set of patches would look the same.
    patches = patchify(images, 4)
    turned = patches.clone()
    for image in range(2):
        turned[image, plan.keep[image]] = patches[image, plan.keep[image].flip(0)]
    moved = unpatchify(turned, encoder.grid, 4)

    def pooled(pixels: torch.Tensor) -> torch.Tensor:
        return encoder(pixels, plan if masked else None).mean(dim=1)

    assert (pooled(images) - pooled(moved)).abs().max() > 1e-3


def test_inference_sees_every_patch_and_repeats_itself(encoder):
    images = draw_images(encoder).requires_grad_()

    tokens = encoder(images)
    tokens[..., 0].sum().backward()

    assert tokens.shape == (2, encoder.num_prefix_tokens + encoder.grid[0] * encoder.grid[1], 32)
    assert (patchify(images.grad, 4).abs().amax(dim=-1) > 0).all()
    assert torch.equal(encoder(images), tokens)


def test_nothing_is_random_in_training_without_drop_path(encoder, random_plan):
    images, plan = draw_images(encoder), random_plan(2, encoder.grid)
    still = encoder(images, plan)
    assert torch.equal(encoder.train()(images, plan), still)


@pytest.mark.parametrize("masked", [False, True])
def test_drop_path_skips_blocks_in_training_and_none_in_inference(masked, random_plan):
    encoder = Encoder("vit_tiny_patch16_224", **{**SMALL, "depth": 3}, drop_path=0.5)
    images = draw_images(encoder, batch=16)
    plan = random_plan(16, encoder.grid) if masked else None

    encoder.train()
    assert not torch.equal(encoder(images, plan), encoder(images, plan))
    encoder.eval()
    assert torch.equal(encoder(images, plan), encoder(images, plan))


def test_drop_path_rises_linearly_to_the_last_block():
    encoder = Encoder("vit_tiny_patch16_224", **{**SMALL, "depth": 3}, drop_path=0.2)
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in encoder.vit.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2])


def test_gradient_checkpointing_changes_neither_tokens_nor_gradients(random_plan):
    results = []
    for enabled in (False, True):
        torch.manual_seed(0)
        encoder = Encoder("vit_tiny_patch16_224", **SMALL).train()
        encoder.vit.set_grad_checkpointing(enabled)
        tokens = encoder(draw_images(encoder), random_plan(2, encoder.grid))
        tokens.square().sum().backward()
        results.append((tokens.detach(), encoder.vit.blocks[0].attn.qkv.weight.grad))

    torch.testing.assert_close(results[0], results[1])


def test_sincos_positions_are_fixed_and_learned_ones_learn():
    fixed, learned = (Encoder("vit_tiny_patch16_224", **SMALL, positions=kind) for kind in ("sincos", "learned"))

    assert not fixed.vit.pos_embed.requires_grad
    assert learned.vit.pos_embed.requires_grad
    # Row 1 of the 4x4 grid, column 2; the class token comes first.
    row = fixed.vit.pos_embed[0, 1 + 1 * 4 + 2]
    assert row[1].item() == pytest.approx(math.sin(2 / 10000 ** (1 / 8)), abs=1e-6)
    assert row[16 + 1].item() == pytest.approx(math.sin(1 / 10000 ** (1 / 8)), abs=1e-6)
    assert not fixed.vit.pos_embed[0, 0].any()


def test_weights_start_as_in_the_paper():
    encoder = Encoder("vit_tiny_patch16_224", **{**SMALL, "width": 64}, options={"reg_tokens": 4})

    fans = {"blocks.0.attn.qkv": (64, 192), "blocks.1.attn.proj": (64, 64), "blocks.0.mlp.fc1": (64, 256)}
    # The convolution is a matrix from the 3 * 4 * 4 values of a patch to the width.
    fans["patch_embed.proj"] = (48, 64)
    for name, (fan_in, fan_out) in fans.items():
        bound = math.sqrt(6 / (fan_in + fan_out))
        largest = encoder.vit.get_submodule(name).weight.abs().max().item()
        assert 0.97 * bound < largest <= bound, name
    for name, parameter in encoder.vit.named_parameters():
        if name.endswith(".bias"):
            assert not parameter.any(), name
        elif ".norm" in name or name.startswith("norm"):
            assert (parameter == 1).all(), name
    for token in (encoder.vit.cls_token, encoder.vit.reg_token):
        assert 0.015 < token.std().item() < 0.025


@pytest.mark.parametrize("patch_size", [None, 16])
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("swin_tiny_patch4_window7_224", "SwinTransformer, and no plain ViT"),
        ("resnet18", "ResNet, and no plain ViT"),
        ("deit_tiny_distilled_patch16_224", "places its tokens in its own way"),
        ("vit_tiny_patch16_225", "not a timm model: did you mean vit_tiny_patch16_224"),
        ("qqq", r"not a timm model: timm\.list_models\('vit\*'\) lists them"),
    ],
)
def test_what_is_no_plain_vit_is_refused_by_name(name, says, patch_size):
    with pytest.raises(ValueError, match=rf"model\.name='{name}' .*{says}"):
        Encoder(name, 224, patch_size=patch_size)


def test_blocks_that_hide_their_attention_are_refused_or_work():
    # timm's parallel blocks have no `attn` of their own.
    try:
        encoder = Encoder("vit_small_patch16_18x2_224", **SMALL)
    except ValueError as error:
        assert "vit_small_patch16_18x2_224" in str(error)
    else:
        assert encoder(draw_images(encoder)).shape == (2, 17, 32)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"image_size": 18}, "18x18 is not divisible by the patch size 4: 16x16"),
        ({"width": 33}, r"model\.width=33 is not divisible by model\.heads=2"),
        ({"width": 30}, "width that 4 divides, not 30: choose 32"),
        ({"positions": "rotary"}, r"model\.positions='rotary' is unknown: choose one of sincos, learned"),
        ({"options": {"pos_embed": "none"}}, "has no position table"),
        ({"options": {"nonsense": 1}}, "nonsense"),
        ({"options": {"global_pool": "avg"}}, "global_pool"),
        (
            {"attention_bias": False, "options": {"qkv_bias": True}},
            r"model\.options\.qkv_bias is set by the encoder itself",
        ),
    ],
)
def test_sizes_and_options_that_do_not_fit_are_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        Encoder("vit_tiny_patch16_224", **{**SMALL, **changes})


def test_images_and_plans_of_another_size_are_refused(random_plan):
    encoder = Encoder("vit_tiny_patch16_224", **SMALL)

    with pytest.raises(ValueError, match=r"\(1, 3, 32, 32\) do not fit an encoder of \(B, 3, 16, 16\)"):
        encoder(torch.zeros(1, 3, 32, 32))
    with pytest.raises(ValueError, match=r"\(1, 1, 16, 16\) do not fit"):
        encoder(torch.zeros(1, 1, 16, 16), random_plan(1, (4, 4)))
    with pytest.raises(ValueError, match=r"\(2, 8\) grid does not fit the encoder's \(4, 4\)"):
        encoder(torch.zeros(1, 3, 16, 16), random_plan(1, (2, 8)))


def test_the_config_builds_the_same_encoder_again(encoder):
    again = Encoder(**encoder.config).eval()
    again.load_state_dict(encoder.state_dict())

    images = draw_images(encoder)
    assert torch.equal(again(images), encoder(images))


def test_dropout_on_the_embeddings_is_that_of_timm_where_patches_are_left_out(random_plan):
    encoder = Encoder("vit_tiny_patch16_224", **SMALL, options={"pos_drop_rate": 0.5})
    images, plan = torch.randn(2, 3, 16, 16), random_plan(2, (4, 4))
    embedded = []
    encoder.vit.blocks[0].register_forward_pre_hook(lambda _, given: embedded.append(given[0]))

    for mode in (True, False):
        encoder.train(mode)(images, plan)

    dropped, whole = embedded
    zero = dropped == 0
    assert 0.3 < zero.float().mean() < 0.7
    torch.testing.assert_close(dropped[~zero], 2 * whole[~zero])
