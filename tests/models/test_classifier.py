from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from mae.models.backbones.encoder import Encoder
from mae.models.classifier import Classifier
from mae.models.heads import AttentiveHead, LinearHead

SMALL = {"image_size": 16, "patch_size": 4, "width": 32, "depth": 2, "heads": 2}


def make_encoder(name: str = "vit_tiny_patch16_224", **changes) -> Encoder:
    return Encoder(name, **{**SMALL, **changes})


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(4, 3, 16, 16)


def test_a_frozen_encoder_stays_as_it_was_bit_for_bit(images):
    model = Classifier(make_encoder(drop_path=0.5), LinearHead(32, 5, batch_norm=True), blocks=0).train()
    before = copy.deepcopy(model.encoder.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)

    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(model(images), torch.arange(4)).backward()
        optimizer.step()

    after = model.encoder.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert {name for name, parameter in model.named_parameters() if parameter.grad is not None} == {
        "head.linear.weight",
        "head.linear.bias",
    }


def test_a_frozen_encoder_is_in_eval_mode_whatever_train_says(images):
    model = Classifier(make_encoder(drop_path=0.9), LinearHead(32, 5), blocks=0)

    model.train()

    assert model.head.training
    assert not any(part.training for part in model.encoder.modules())
    assert torch.equal(model.features(images), model.features(images))


def test_a_frozen_encoder_is_in_eval_mode_from_the_start(images):
    # Lightning leaves the modes as it finds them and need not call train() before the first epoch.
    model = Classifier(make_encoder(drop_path=0.9), LinearHead(32, 5), blocks=0)
    assert not any(part.training for part in model.encoder.modules())


def test_an_encoder_that_learns_follows_train_and_eval(images):
    model = Classifier(make_encoder(drop_path=0.9), LinearHead(32, 5))

    model.train()
    assert not torch.equal(model.features(images), model.features(images))
    model.eval()
    assert torch.equal(model(images), model(images))


@pytest.mark.parametrize("kind", [{}, {"options": {"reg_tokens": 2}}, {"name": "vit_base_patch16_siglip_gap_224"}])
def test_frozen_mean_pooling_averages_the_normalised_patch_tokens_alone(images, kind):
    encoder = make_encoder(**kind)
    model = Classifier(encoder, LinearHead(32, 5), blocks=0).eval()

    tokens = encoder(images)[:, encoder.num_prefix_tokens :]

    expected = sum(tokens[:, patch] for patch in range(16)) / 16
    torch.testing.assert_close(model.features(images), expected)


@pytest.mark.parametrize("blocks", [None, 0.5, 1, 2])
def test_fine_tuned_mean_pooling_normalises_after_the_pooling(images, blocks):
    encoder = make_encoder()
    vit = copy.deepcopy(encoder.vit).eval()
    model = Classifier(encoder, LinearHead(32, 5), blocks=blocks).eval()

    unnormalised = vit.blocks(vit._pos_embed(vit.patch_embed(images)))
    expected = F.layer_norm(unnormalised[:, 1:].mean(dim=1), (32,), eps=1e-6)

    torch.testing.assert_close(model.features(images), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("pool", "blocks", "afresh"),
    [("mean", None, True), ("mean", 0.5, True), ("mean", 0, False), ("token", None, False), ("token", 1, False)],
)
def test_the_last_norm_starts_afresh_where_it_normalises_means(pool, blocks, afresh):
    encoder = make_encoder()
    with torch.no_grad():
        encoder.vit.norm.weight.fill_(3)
        encoder.vit.norm.bias.fill_(2)

    Classifier(encoder, LinearHead(32, 5), pool=pool, blocks=blocks)

    assert (encoder.vit.norm.weight == (1 if afresh else 3)).all()
    assert (encoder.vit.norm.bias == (0 if afresh else 2)).all()


@pytest.mark.parametrize("blocks", [0, 1, None])
def test_a_head_that_pools_itself_gets_every_token_normalised(images, blocks):
    encoder = make_encoder(options={"reg_tokens": 2})
    model = Classifier(encoder, AttentiveHead(32, 5, heads=2), pool="all", blocks=blocks).eval()

    tokens = encoder(images)
    assert torch.equal(model.features(images), tokens)
    assert torch.equal(model(images), model.head(tokens))


@pytest.mark.parametrize("frozen", [True, False])
def test_token_pooling_takes_the_normalised_class_token(images, frozen):
    encoder = make_encoder(options={"reg_tokens": 2})
    model = Classifier(encoder, LinearHead(32, 5), pool="token", blocks=0 if frozen else None).eval()

    assert torch.equal(model.features(images), encoder(images)[:, 0])


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("pool", ["mean", "token"])
@pytest.mark.parametrize("positions", ["sincos", "learned"])
def test_every_parameter_that_learns_gets_a_gradient(images, pool, frozen, positions):
    # A head of zeros, as good as the paper's deviation of 2e-5, would stop the gradient before the encoder.
    model = Classifier(
        make_encoder(positions=positions, options={"reg_tokens": 2}),
        LinearHead(32, 5, batch_norm=frozen, init_std=0.02),
        pool=pool,
        blocks=0 if frozen else None,
    ).train()

    F.cross_entropy(model(images), torch.arange(4)).backward()

    learning = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert [name for name, parameter in learning.items() if parameter.grad is None] == []
    assert any(name.startswith("encoder.vit.pos_embed") for name in learning) is not frozen
    assert any(name.startswith("encoder.") for name in learning) is not frozen


def test_frozen_features_carry_no_graph(images):
    model = Classifier(make_encoder(), LinearHead(32, 5), blocks=0).train()
    assert not model.features(images).requires_grad
    assert model(images).requires_grad


def test_the_batch_norm_of_a_probe_has_statistics_and_no_parameters():
    head = LinearHead(32, 5, batch_norm=True)
    features = torch.randn(64, 32) * 3 + 2

    assert {name for name, _ in head.named_parameters()} == {"linear.weight", "linear.bias"}
    normalised = head.train().norm(features)
    expected = (features - features.mean(dim=0)) / (features.var(dim=0, unbiased=False) + 1e-6).sqrt()
    torch.testing.assert_close(normalised, expected, atol=1e-5, rtol=1e-5)

    statistics = head.norm.running_mean.clone()
    head.eval()(features + 100)
    assert torch.equal(head.norm.running_mean, statistics)


@pytest.mark.parametrize("std", [0.01, 0.5])
def test_a_head_starts_with_weights_of_the_deviation_asked_for_and_no_bias(std):
    head = LinearHead(100, 100, init_std=std)
    assert head.linear.weight.std().item() == pytest.approx(std, rel=0.05)
    assert not head.linear.bias.any()


def test_pooling_that_the_encoder_cannot_do_is_refused():
    with pytest.raises(ValueError, match=r"pool=token needs a class token, .*siglip.*: choose pool=mean"):
        Classifier(make_encoder("vit_base_patch16_siglip_gap_224"), LinearHead(32, 5), pool="token")
    with pytest.raises(ValueError, match="pool='max' is unknown: choose one of mean, token, tokens, all"):
        Classifier(make_encoder(), LinearHead(32, 5), pool="max")
