from __future__ import annotations

import pytest

from mae.models.backbones.encoder import Encoder
from mae.models.classifier import Classifier
from mae.models.heads import AttentiveHead, LinearHead
from mae.optim.groups import parameter_groups

SMALL = {"image_size": 16, "patch_size": 4, "width": 32, "depth": 2, "heads": 2}


def block(i: int, kind: str) -> set[str]:
    matrices = {"attn.qkv.weight", "attn.proj.weight", "mlp.fc1.weight", "mlp.fc2.weight"}
    vectors = {"attn.qkv.bias", "attn.proj.bias", "mlp.fc1.bias", "mlp.fc2.bias"}
    vectors |= {"norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"}
    return {f"encoder.vit.blocks.{i}.{name}" for name in (matrices if kind == "decay" else vectors)}


def named_groups(module, groups) -> list[tuple[set[str], float, float]]:
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return [({names[id(p)] for p in group["params"]}, group["lr"], group["weight_decay"]) for group in groups]


def test_the_groups_of_a_two_block_classifier_are_those_written_out_here():
    model = Classifier(Encoder("vit_tiny_patch16_224", **SMALL), LinearHead(32, 5))

    groups = parameter_groups(
        model, lr=1.0, weight_decay=0.05, layer_decay=0.5, depth=2, layer_of=model.encoder.layer_of
    )

    # Layer 0 embeds, 1 and 2 are the blocks, 3 is what follows them.
    expected = [
        (
            {"encoder.vit.cls_token", "encoder.vit.pos_embed", "encoder.vit.patch_embed.proj.bias"},
            0.125,
            0.0,
        ),
        ({"encoder.vit.patch_embed.proj.weight"}, 0.125, 0.05),
        (block(0, "no decay"), 0.25, 0.0),
        (block(0, "decay"), 0.25, 0.05),
        (block(1, "no decay"), 0.5, 0.0),
        (block(1, "decay"), 0.5, 0.05),
        ({"encoder.vit.norm.weight", "encoder.vit.norm.bias", "head.linear.bias"}, 1.0, 0.0),
        ({"head.linear.weight"}, 1.0, 0.05),
    ]
    assert named_groups(model, groups) == expected


def test_the_groups_of_the_last_block_alone_are_those_written_out_here():
    model = Classifier(Encoder("vit_tiny_patch16_224", **SMALL), LinearHead(32, 5), blocks=1)

    groups = parameter_groups(
        model, lr=1.0, weight_decay=0.05, layer_decay=0.5, depth=2, layer_of=model.encoder.layer_of
    )

    # The last block keeps its place in the decay: 2 of 3, whatever is frozen before it.
    assert named_groups(model, groups) == [
        (block(1, "no decay"), 0.5, 0.0),
        (block(1, "decay"), 0.5, 0.05),
        ({"encoder.vit.norm.weight", "encoder.vit.norm.bias", "head.linear.bias"}, 1.0, 0.0),
        ({"head.linear.weight"}, 1.0, 0.05),
    ]


def test_the_groups_of_half_a_block_are_those_written_out_here():
    model = Classifier(Encoder("vit_tiny_patch16_224", **SMALL), LinearHead(32, 5), blocks=0.5)

    groups = parameter_groups(
        model, lr=1.0, weight_decay=0.05, layer_decay=0.5, depth=2, layer_of=model.encoder.layer_of
    )

    last = "encoder.vit.blocks.1"
    assert named_groups(model, groups) == [
        (
            {f"{last}.norm2.weight", f"{last}.norm2.bias", f"{last}.mlp.fc1.bias", f"{last}.mlp.fc2.bias"},
            0.5,
            0.0,
        ),
        ({f"{last}.mlp.fc1.weight", f"{last}.mlp.fc2.weight"}, 0.5, 0.05),
        ({"encoder.vit.norm.weight", "encoder.vit.norm.bias", "head.linear.bias"}, 1.0, 0.0),
        ({"head.linear.weight"}, 1.0, 0.05),
    ]


@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
def test_the_groups_of_an_attentive_probe_are_those_written_out_here(layer_decay):
    model = Classifier(
        Encoder("vit_tiny_patch16_224", **SMALL),
        AttentiveHead(32, 5, heads=2, batch_norm=True),
        pool="all",
        blocks=0,
    )

    groups = parameter_groups(
        model, lr=0.3, weight_decay=0.05, layer_decay=layer_decay, depth=2, layer_of=model.encoder.layer_of
    )

    # The query is a token: no weight decay.
    pool = "head.pool"
    still = {f"{pool}.latent", f"{pool}.q.bias", f"{pool}.kv.bias", f"{pool}.proj.bias"}
    still |= {f"{pool}.norm.weight", f"{pool}.norm.bias", f"{pool}.mlp.fc1.bias", f"{pool}.mlp.fc2.bias"}
    matrices = {f"{pool}.q.weight", f"{pool}.kv.weight", f"{pool}.proj.weight"}
    matrices |= {f"{pool}.mlp.fc1.weight", f"{pool}.mlp.fc2.weight"}
    assert named_groups(model, groups) == [
        (still | {"head.head.linear.bias"}, 0.3, 0.0),
        (matrices | {"head.head.linear.weight"}, 0.3, 0.05),
    ]


def test_without_layer_decay_there_are_two_groups_at_one_rate(tiny_autoencoder):
    groups = parameter_groups(tiny_autoencoder(), lr=0.3, weight_decay=0.05)

    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(0.3, 0.0), (0.3, 0.05)]


@pytest.mark.parametrize(
    "changes",
    [
        {"positions": "learned", "options": {"reg_tokens": 2}},
        {"name": "vit_small_patch14_reg4_dinov2", "positions": "learned"},
        {"name": "vit_base_patch16_clip_224"},
    ],
)
def test_only_matrices_decay_and_no_bias_norm_scale_token_or_position_does(tiny_autoencoder, changes):
    model = tiny_autoencoder(**changes)

    (still, _, none), (decaying, _, some) = named_groups(model, parameter_groups(model, lr=1.0, weight_decay=0.05))

    assert (none, some) == (0.0, 0.05)
    last = {name.rpartition(".")[2] for name in decaying}
    assert last == {"weight"}
    assert not any("norm" in name for name in decaying)
    tokens = {name for name in still if name.endswith(("_token", "pos_embed"))}
    assert {"encoder.vit.cls_token", "decoder.mask_token"} <= tokens
    for name in still - tokens:
        assert name.endswith((".bias", ".gamma")) or "norm" in name, name
    assert ("encoder.vit.pos_embed" in tokens) == (changes.get("positions") == "learned")


@pytest.mark.parametrize("layer_decay", [1.0, 0.75])
def test_every_learning_parameter_is_in_one_group_and_no_frozen_one_in_any(tiny_autoencoder, layer_decay):
    model = tiny_autoencoder()
    model.encoder.vit.blocks[0].requires_grad_(False)

    groups = parameter_groups(
        model, lr=1.0, weight_decay=0.05, layer_decay=layer_decay, depth=2, layer_of=model.encoder.layer_of
    )

    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}


def test_blocks_of_the_decoder_are_no_layers_of_the_encoder(tiny_autoencoder):
    model = tiny_autoencoder()
    groups = parameter_groups(
        model, lr=1.0, weight_decay=0.05, layer_decay=0.5, depth=2, layer_of=model.encoder.layer_of
    )

    for names, lr, _ in named_groups(model, groups):
        if any(name.startswith("decoder.") for name in names):
            assert lr == 1.0
            assert not any(".vit.blocks." in name for name in names)
