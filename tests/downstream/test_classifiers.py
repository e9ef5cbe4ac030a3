"""The protocols as conf/protocol has them: which head, which pooling, and how much learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mae.models.protocols import create_classifier

from mae.config.composing import compose
from mae.models.backbones.encoder import Encoder
from mae.models.heads import AttentiveHead, LinearHead, MLPHead

SMALL = {"image_size": 16, "patch_size": 4, "width": 32, "depth": 2, "heads": 2}
K = 5

# Of a width of 32, an MLP of 128, patches of 4x4x3 pixels, 16 of them, and five classes.
HEAD = 32 * 5 + 5
NORM = 32 + 32
ATTENTION = NORM + (32 * 96 + 96) + (32 * 32 + 32)
MLP = NORM + (32 * 128 + 128) + (128 * 32 + 32)
EMBEDDINGS = (48 * 32 + 32) + 32 + 17 * 32
ATTENTIVE = 32 + (32 * 32 + 32) + (32 * 64 + 64) + (32 * 32 + 32) + MLP


def make_encoder(name: str = "vit_tiny_patch16_224", **changes: Any) -> Encoder:
    return Encoder(name, **{**SMALL, **changes})


def options(protocol: str, **changes: Any) -> dict[str, Any]:
    """The config group of a protocol, as a user gets it."""
    return {**compose("finetune", [f"protocol={protocol}"])["protocol"], **changes}


def trained(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


@pytest.mark.parametrize(
    ("name", "changes", "head", "pool", "count"),
    [
        ("linear_probe", {}, LinearHead, "mean", HEAD),
        ("linear_probe", {"pool": "token"}, LinearHead, "token", HEAD),
        ("mlp_probe", {}, MLPHead, "mean", 32 * 32 + 32 + HEAD),
        ("mlp_probe", {"hidden": 48, "pool": "token"}, MLPHead, "token", 32 * 48 + 48 + 48 * 5 + 5),
        ("attentive_probe", {}, AttentiveHead, "all", ATTENTIVE + HEAD),
        ("attentive_probe", {"mlp_ratio": 1.0}, AttentiveHead, "all", ATTENTIVE - MLP + NORM + 2 * 1056 + HEAD),
        ("partial_finetune", {"blocks": 0.5}, LinearHead, "mean", MLP + NORM + HEAD),
        ("partial_finetune", {}, LinearHead, "mean", ATTENTION + MLP + NORM + HEAD),
        ("partial_finetune", {"blocks": 1.5, "pool": "token"}, LinearHead, "token", ATTENTION + 2 * MLP + NORM + HEAD),
        ("finetune", {}, LinearHead, "mean", EMBEDDINGS + 2 * (ATTENTION + MLP) + NORM + HEAD),
    ],
)
def test_a_protocol_names_its_head_its_pooling_and_what_learns(name, changes, head, pool, count):
    model = create_classifier(make_encoder(), K, options(name, **changes))

    assert (type(model.head), model.pool) == (head, pool)
    assert trained(model) == count
    assert model(torch.randn(2, 3, 16, 16)).shape == (2, K)


@pytest.mark.parametrize("name", ["linear_probe", "mlp_probe", "attentive_probe"])
@pytest.mark.parametrize("given", [True, False])
def test_probes_normalise_features_unless_told_otherwise(name, given):
    model = create_classifier(make_encoder(), K, options(name, **({} if given else {"batch_norm": False})))
    norms = [part for part in model.modules() if isinstance(part, torch.nn.BatchNorm1d)]
    assert [(norm.affine, norm.eps) for norm in norms] == ([(False, 1e-6)] if given else [])
    assert not any(parameter.requires_grad for parameter in model.encoder.parameters())


@pytest.mark.parametrize("name", ["partial_finetune", "finetune"])
def test_fine_tuning_has_no_batch_norm(name):
    model = create_classifier(make_encoder(), K, options(name))
    assert not any(isinstance(part, torch.nn.BatchNorm1d) for part in model.modules())


@pytest.mark.parametrize(
    ("name", "std"), [("linear_probe", 0.01), ("mlp_probe", 0.01), ("attentive_probe", 0.01), ("finetune", 2e-5)]
)
def test_the_last_layer_starts_as_its_recipe_has_it(name, std):
    for changes, expected in (({}, std), ({"head_std": 0.3}, 0.3)):
        head = create_classifier(make_encoder(), 400, options(name, **changes)).head
        layer = head.head.linear if name == "attentive_probe" else head.linear
        assert layer.weight.std().item() == pytest.approx(expected, rel=0.05)


def test_the_options_of_a_head_reach_it():
    features = torch.randn(4, 32)
    head = create_classifier(make_encoder(), K, options("mlp_probe", activation="tanh", batch_norm=False)).head
    torch.testing.assert_close(head(features), head.linear(torch.tanh(head.hidden(features))))

    default, eight = (
        create_classifier(make_encoder(), K, options("attentive_probe", heads=heads)).head for heads in (None, 8)
    )
    assert (default.pool.num_heads, eight.pool.num_heads) == (2, 8)


def test_an_attentive_probe_sees_class_registers_and_every_patch():
    encoder = make_encoder(options={"reg_tokens": 2})
    model = create_classifier(encoder, K, options("attentive_probe")).eval()
    images = torch.randn(2, 3, 16, 16)

    tokens = encoder(images)
    assert tokens.shape == (2, 1 + 2 + 16, 32)
    assert torch.equal(model.features(images), tokens)
    read = tokens.detach().requires_grad_()
    model.head(read)[:, 0].sum().backward()
    assert read.grad.abs().amax(dim=-1).min() > 0


@pytest.mark.parametrize("name", ["vit_small_patch16_18x2_224", "vit_pwee_patch16_reg1_gap_256"])
@pytest.mark.parametrize(("protocol", "changes"), [("attentive_probe", {}), ("partial_finetune", {"blocks": 0.5})])
def test_blocks_that_are_no_attention_and_then_an_mlp_are_refused_or_work(name, protocol, changes):
    # timm's parallel blocks have no `attn` and no halves.
    encoder = make_encoder(name, positions="learned")
    try:
        model = create_classifier(encoder, K, options(protocol, **changes)).train()
    except ValueError as error:
        assert "protocol." in str(error)
    else:
        F.cross_entropy(model(torch.randn(4, 3, 16, 16)), torch.arange(4)).backward()
        assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        (
            "finetune",
            {"name": "lora"},
            r"protocol\.name='lora' is unknown: choose one of linear_probe, mlp_probe, attentive_probe, partial_finetune, "
            "finetune",
        ),
        ("partial_finetune", {"blocks": 0}, r"protocol\.blocks=0 tunes nothing: protocol=linear_probe does that"),
        ("partial_finetune", {"blocks": 2.5}, r"protocol\.blocks=2\.5 cannot be tuned: the encoder has 2 blocks"),
        ("mlp_probe", {"activation": "swish"}, r"protocol\.activation='swish' is unknown"),
        ("attentive_probe", {"heads": 3}, r"protocol\.heads=3 does not divide the encoder's width of 32"),
        ("linear_probe", {"pool": "max"}, "pool='max' is unknown"),
    ],
)
def test_what_no_protocol_can_do_is_refused(name, changes, says):
    with pytest.raises(ValueError, match=says):
        create_classifier(make_encoder(), K, options(name, **changes))
