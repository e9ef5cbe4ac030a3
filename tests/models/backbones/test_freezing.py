from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from mae.models.backbones.encoder import Encoder
from mae.models.classifier import Classifier
from mae.models.heads import LinearHead

SMALL = {"image_size": 16, "patch_size": 4, "width": 32, "depth": 2, "heads": 2}

EMBEDDINGS = {"vit.cls_token", "vit.pos_embed", "vit.patch_embed.proj.weight", "vit.patch_embed.proj.bias"}
NORM = {"vit.norm.weight", "vit.norm.bias"}
ATTENTION_0 = {
    *("vit.blocks.0.norm1.weight", "vit.blocks.0.norm1.bias"),
    *("vit.blocks.0.attn.qkv.weight", "vit.blocks.0.attn.qkv.bias"),
    *("vit.blocks.0.attn.proj.weight", "vit.blocks.0.attn.proj.bias"),
}
MLP_0 = {
    *("vit.blocks.0.norm2.weight", "vit.blocks.0.norm2.bias"),
    *("vit.blocks.0.mlp.fc1.weight", "vit.blocks.0.mlp.fc1.bias"),
    *("vit.blocks.0.mlp.fc2.weight", "vit.blocks.0.mlp.fc2.bias"),
}
ATTENTION_1 = {
    *("vit.blocks.1.norm1.weight", "vit.blocks.1.norm1.bias"),
    *("vit.blocks.1.attn.qkv.weight", "vit.blocks.1.attn.qkv.bias"),
    *("vit.blocks.1.attn.proj.weight", "vit.blocks.1.attn.proj.bias"),
}
MLP_1 = {
    *("vit.blocks.1.norm2.weight", "vit.blocks.1.norm2.bias"),
    *("vit.blocks.1.mlp.fc1.weight", "vit.blocks.1.mlp.fc1.bias"),
    *("vit.blocks.1.mlp.fc2.weight", "vit.blocks.1.mlp.fc2.bias"),
}
LEARNS = {
    None: EMBEDDINGS | ATTENTION_0 | MLP_0 | ATTENTION_1 | MLP_1 | NORM,
    0: set(),
    0.5: MLP_1 | NORM,
    1: ATTENTION_1 | MLP_1 | NORM,
    1.5: MLP_0 | ATTENTION_1 | MLP_1 | NORM,
    2: ATTENTION_0 | MLP_0 | ATTENTION_1 | MLP_1 | NORM,
}


def make_encoder(name: str = "vit_tiny_patch16_224", **changes) -> Encoder:
    return Encoder(name, **{**SMALL, **changes})


def learning(encoder: Encoder) -> set[str]:
    return {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}


def in_training(encoder: Encoder) -> set[str]:
    return {name for name, part in encoder.named_modules() if part.training}


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(64, 3, 16, 16)


@pytest.mark.parametrize("blocks", LEARNS)
def test_what_learns_is_what_is_written_out_here(blocks):
    encoder = make_encoder()
    encoder.freeze_all_but(blocks)
    assert learning(encoder) == LEARNS[blocks]


def test_what_was_frozen_before_learns_again():
    encoder = make_encoder()
    encoder.freeze_all_but(0)
    encoder.freeze_all_but(1.5)
    assert learning(encoder) == LEARNS[1.5]


def test_half_a_block_is_all_that_follows_its_attention():
    # Layer scales belong to the halves, registers and class token to the embeddings.
    encoder = make_encoder("vit_small_patch14_reg4_dinov2", positions="learned")
    assert {"vit.reg_token", "vit.blocks.1.ls1.gamma", "vit.blocks.1.ls2.gamma"} <= learning(encoder)
    encoder.freeze_all_but(0.5)
    assert learning(encoder) == MLP_1 | NORM | {"vit.blocks.1.ls2.gamma"}


def test_a_norm_before_the_blocks_stays_frozen_with_them():
    encoder = make_encoder("vit_base_patch16_clip_224")
    assert "vit.norm_pre.weight" in learning(encoder)
    encoder.freeze_all_but(2)
    assert learning(encoder) == LEARNS[2]
    assert not any("norm_pre" in name for name in in_training(Classifier(encoder, LinearHead(32, 5), blocks=2).encoder))


@pytest.mark.parametrize("blocks", [0.5, 1, 1.5, 2])
def test_what_is_frozen_is_in_eval_mode_whatever_train_says(blocks):
    model = Classifier(make_encoder(), LinearHead(32, 5), blocks=blocks)
    for _ in range(2):
        training = in_training(model.encoder)
        for name, part in model.encoder.named_modules():
            own = {f"{name}.{leaf}" for leaf, _ in part.named_parameters(recurse=False)}
            if own and name != "vit":  # which holds the tokens itself, and all the rest
                assert own <= LEARNS[blocks] if name in training else not own & LEARNS[blocks], name
        model.eval()
        assert not in_training(model.encoder)
        model.train()


DEEP = ("blocks.1.drop_path1", "blocks.1.drop_path2", "blocks.2.drop_path1", "blocks.2.drop_path2")


@pytest.mark.parametrize(
    ("blocks", "draws"), [(0, DEEP[:0]), (0.5, DEEP[3:]), (1, DEEP[2:]), (1.5, DEEP[1:]), (2, DEEP), (None, DEEP)]
)
def test_drop_path_draws_where_blocks_learn_and_nowhere_else(images, blocks, draws):
    # Stochastic depth rises from 0 at the first of three blocks to 0.9 at the last.
    model = Classifier(make_encoder(depth=3, drop_path=0.9), LinearHead(32, 5), blocks=blocks).train()
    drew = []
    for name in DEEP:
        part = model.encoder.vit.get_submodule(name)
        part.register_forward_hook(
            lambda _, given, result, name=name: None if torch.equal(given[0], result) else drew.append(name)
        )

    model(images)

    assert drew == list(draws)


def test_dropout_on_the_embeddings_is_off_where_they_are_frozen(images):
    model = Classifier(make_encoder(options={"pos_drop_rate": 0.5}), LinearHead(32, 5), blocks=1).train()
    assert torch.equal(model.features(images), model.features(images))


@pytest.mark.parametrize("blocks", [0, 0.5, 1, 1.5, 2, None])
def test_steps_move_all_that_learns_and_leave_the_rest_bit_for_bit(images, blocks):
    torch.manual_seed(0)
    encoder = make_encoder(drop_path=0.2)
    model = Classifier(encoder, LinearHead(32, 5, init_std=0.02), blocks=blocks).train()
    before = copy.deepcopy(encoder.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.5)

    for _ in range(4):
        optimizer.zero_grad()
        F.cross_entropy(model(images), torch.arange(64) % 5).backward()
        optimizer.step()

    moved = {name for name, value in encoder.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == LEARNS[blocks]


@pytest.mark.parametrize("blocks", [0.5, 1.5])
def test_frozen_blocks_keep_no_graph(images, blocks):
    model = Classifier(make_encoder(), LinearHead(32, 5), blocks=blocks).train()
    needs = {}
    for name in ("patch_embed", "blocks.0", "blocks.1"):
        model.encoder.vit.get_submodule(name).register_forward_hook(
            lambda _, given, result, name=name: needs.update({name: result.requires_grad})
        )

    model(images)

    assert needs == {"patch_embed": False, "blocks.0": blocks > 1, "blocks.1": True}


def test_checkpointing_blocks_changes_no_gradient(images):
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = Classifier(make_encoder(), LinearHead(32, 5, init_std=0.02), blocks=1).train()
        model.encoder.vit.set_grad_checkpointing(checkpointing)
        F.cross_entropy(model(images), torch.arange(64) % 5).backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    assert {name.removeprefix("encoder.") for name, grad in gradients[1].items() if grad is not None} == LEARNS[1] | {
        *("head.linear.weight", "head.linear.bias")
    }
    for name, grad in gradients[0].items():
        assert grad is None or torch.allclose(grad, gradients[1][name], atol=1e-7), name


@pytest.mark.parametrize("blocks", [0.3, 0.25, 1.75, 2.5, 3, -1, -0.5])
def test_blocks_that_are_not_there_are_refused(blocks):
    says = (
        rf"protocol\.blocks={blocks:g} cannot be tuned: the encoder has 2 blocks, so choose a multiple of 0\.5 from 0\.5 "
        r"\(the last MLP\) to 2"
    )
    with pytest.raises(ValueError, match=says):
        make_encoder().freeze_all_but(blocks)
