"""The protocols as conf/protocol has them: which head, which pooling, and how much learns."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F

from mae.config.composing import compose
from mae.config.schema.protocols import AnyProtocol
from mae.downstream.tasks.classifiers import CLASSIFIERS, build_classifier
from mae.models.backbones.encoder import Encoder
from mae.models.classifier import Classifier
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


def build(protocol: str, encoder: Encoder | None = None, classes: int = K, **changes: Any) -> Classifier:
    """Build a classifier from the config group of a protocol, as a user gets it."""
    given = [f"protocol.{key}={value}" for key, value in changes.items()]
    config = compose("finetune", [f"protocol={protocol}", *given])
    return build_classifier(config.protocol, encoder or make_encoder(), classes, seed=0)


def trained(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


@pytest.mark.parametrize(
    ("name", "changes", "head", "pool", "count"),
    [
        ("linear_probe", {}, LinearHead, "mean", HEAD),
        ("mlp_probe", {}, MLPHead, "mean", 32 * 32 + 32 + HEAD),
        ("mlp_probe", {"hidden": 48, "pool": "token"}, MLPHead, "token", 32 * 48 + 48 + 48 * 5 + 5),
        ("attentive_probe", {}, AttentiveHead, "all", ATTENTIVE + HEAD),
        ("attentive_probe", {"mlp_ratio": 1.0}, AttentiveHead, "all", ATTENTIVE - MLP + NORM + 2 * 1056 + HEAD),
        ("partial_finetune", {"blocks": 0.5}, LinearHead, "mean", MLP + NORM + HEAD),
        ("partial_finetune", {"blocks": 1.5, "pool": "token"}, LinearHead, "token", ATTENTION + 2 * MLP + NORM + HEAD),
        ("finetune", {}, LinearHead, "mean", EMBEDDINGS + 2 * (ATTENTION + MLP) + NORM + HEAD),
        ("finetune", {"head": "mlp"}, MLPHead, "mean", EMBEDDINGS + 2 * (ATTENTION + MLP) + NORM + 1056 + HEAD),
    ],
)
def test_a_protocol_names_its_head_its_pooling_and_what_learns(name, changes, head, pool, count):
    model = build(name, **changes)

    assert (type(model.head), model.pool) == (head, pool)
    assert trained(model) == count
    assert model(torch.randn(2, 3, 16, 16)).shape == (2, K)


def test_every_protocol_that_trains_a_classifier_is_registered():
    names = {kind.model_fields["name"].annotation.__args__[0] for kind in get_args(get_args(AnyProtocol)[0])}
    assert {*CLASSIFIERS, "dense", "features"} == names


def test_probes_alone_normalise_features_unless_told_otherwise():
    for name in ("linear_probe", "mlp_probe", "attentive_probe"):
        for given in (True, False):
            model = build(name, batch_norm=str(given).lower())
            norms = [part for part in model.modules() if isinstance(part, torch.nn.BatchNorm1d)]
            assert [(norm.affine, norm.eps) for norm in norms] == ([(False, 1e-6)] if given else []), name
            assert not any(parameter.requires_grad for parameter in model.encoder.parameters()), name
    for name in ("partial_finetune", "finetune"):
        assert not any(isinstance(part, torch.nn.BatchNorm1d) for part in build(name).modules()), name


def test_the_last_layer_starts_as_its_recipe_has_it():
    for name, std in (("linear_probe", 0.01), ("mlp_probe", 0.01), ("attentive_probe", 0.01), ("finetune", 2e-5)):
        for changes, expected in (({}, std), ({"head_std": 0.3}, 0.3)):
            head = build(name, classes=400, **changes).head
            layer = head.head.linear if name == "attentive_probe" else head.linear
            assert layer.weight.std().item() == pytest.approx(expected, rel=0.05), name


def test_the_options_of_a_head_reach_it():
    features = torch.randn(4, 32)
    head = build("mlp_probe", activation="tanh", batch_norm="false").head
    torch.testing.assert_close(head(features), head.linear(torch.tanh(head.hidden(features))))

    default, eight = (build("attentive_probe", heads=heads).head for heads in ("null", 8))
    assert (default.pool.num_heads, eight.pool.num_heads) == (2, 8)


def test_a_head_follows_from_the_seed_alone_whatever_the_encoder():
    torch.manual_seed(1)
    heads = [build("mlp_probe").head.state_dict() for _ in range(2)]
    assert all(torch.equal(heads[0][key], heads[1][key]) for key in heads[0])


def test_an_attentive_probe_sees_class_registers_and_every_patch():
    encoder = make_encoder(options={"reg_tokens": 2})
    model = build("attentive_probe", encoder).eval()
    images = torch.randn(2, 3, 16, 16)

    tokens = encoder(images)
    assert tokens.shape == (2, 1 + 2 + 16, 32)
    assert torch.equal(model.features(images), tokens)
    read = tokens.detach().requires_grad_()
    model.head(read)[:, 0].sum().backward()
    assert read.grad.abs().amax(dim=-1).min() > 0


def test_blocks_that_are_no_attention_and_then_an_mlp_are_refused_or_work():
    # timm's parallel blocks have no `attn` and no halves.
    for name in ("vit_small_patch16_18x2_224", "vit_pwee_patch16_reg1_gap_256"):
        for protocol, changes in (("attentive_probe", {}), ("partial_finetune", {"blocks": 0.5})):
            encoder = make_encoder(name, positions="learned")
            try:
                model = build(protocol, encoder, **changes).train()
            except ValueError as error:
                assert "protocol." in str(error)
            else:
                F.cross_entropy(model(torch.randn(4, 3, 16, 16)), torch.arange(4)).backward()
                learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
                assert all(parameter.grad is not None for parameter in learning), name


def test_what_no_protocol_can_do_is_refused():
    for name, changes, says in (
        ("finetune", {"name": "lora"}, r"protocol\.name='lora' is unknown: choose one of linear_probe, mlp_probe"),
        ("partial_finetune", {"blocks": 0}, r"protocol\.blocks=0\.?0? tunes nothing: protocol=linear_probe does that"),
        ("partial_finetune", {"blocks": 2.5}, r"protocol\.blocks=2\.5 cannot be tuned: the encoder has 2 blocks"),
        (
            "mlp_probe",
            {"activation": "swish"},
            r"protocol\.activation='swish' is unknown: choose one of relu, gelu, tanh",
        ),
        ("attentive_probe", {"heads": 3}, r"protocol\.heads=3 does not divide the encoder's width of 32"),
        ("linear_probe", {"pool": "max"}, r"protocol\.pool='max' is unknown: choose one of mean, token"),
    ):
        with pytest.raises(ValueError, match=says):
            build(name, **changes)
