"""The ViTs of d2l.ai and labml.ai as configs: their sizes, and their functions against ones written by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from mae.checkpoints.format import save
from mae.checkpoints.load import load_encoder
from mae.config.composing import compose
from mae.downstream.tasks.classifiers import build_classifier
from mae.models.backbones.encoder import Encoder
from mae.models.classifier import Classifier


def build(experiment: str, image_size: int, channels: int, **changes: Any) -> Classifier:
    config = compose("finetune", [f"experiment={experiment}"])
    torch.manual_seed(0)
    encoder = Encoder(image_size=image_size, in_channels=channels, **{**config.model.arguments, **changes})
    encoder.set_pixel_statistics([0.5] * channels, [0.5] * channels)
    return build_classifier(config.protocol, encoder, 10, seed=0)


@pytest.mark.parametrize(
    ("experiment", "size", "channels", "parameters"),
    [("fashion_mnist_vit_d2l", 96, 1, 6_457_866), ("cifar10_vit_labml", 32, 3, 20_045_322)],
)
def test_parameters_are_those_of_the_originals(experiment: str, size: int, channels: int, parameters: int) -> None:
    model = build(experiment, size, channels)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def by_hand(
    state: dict[str, torch.Tensor], images: torch.Tensor, patch: int, heads: int, activation: Any
) -> torch.Tensor:
    """Return the normalised class token of a pre-norm ViT, from its weights alone."""
    width = state["cls_token"].shape[-1]
    tokens = F.conv2d(images, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=patch)
    tokens = tokens.flatten(2).transpose(1, 2)
    x = torch.cat([state["cls_token"].expand(len(images), -1, -1), tokens], dim=1) + state["pos_embed"]

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(x, (width,), state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-5)

    for number in range(2):
        block = f"blocks.{number}"
        y = norm(x, f"{block}.norm1")
        queries, keys, values = (
            F.linear(y, weight, bias)
            for weight, bias in zip(
                state[f"{block}.attn.qkv.weight"].chunk(3),
                state[f"{block}.attn.qkv.bias"].chunk(3) if f"{block}.attn.qkv.bias" in state else [None] * 3,
                strict=True,
            )
        )
        out = []
        for head in range(heads):
            part = slice(head * width // heads, (head + 1) * width // heads)
            scores = queries[..., part] @ keys[..., part].transpose(1, 2) / math.sqrt(width / heads)
            out.append(scores.softmax(dim=-1) @ values[..., part])
        x = x + F.linear(
            torch.cat(out, dim=-1), state[f"{block}.attn.proj.weight"], state.get(f"{block}.attn.proj.bias")
        )
        y = activation(
            F.linear(norm(x, f"{block}.norm2"), state[f"{block}.mlp.fc1.weight"], state[f"{block}.mlp.fc1.bias"])
        )
        x = x + F.linear(y, state[f"{block}.mlp.fc2.weight"], state[f"{block}.mlp.fc2.bias"])
    return norm(x, "norm")[:, 0]


def test_logits_of_d2l_are_those_of_a_vit_by_hand() -> None:
    model = build("fashion_mnist_vit_d2l", 96, 1).eval()
    images = torch.randn(2, 1, 96, 96)
    state = model.encoder.vit.state_dict()  # type: ignore[union-attr]
    assert not [name for name in state if "attn" in name and name.endswith("bias")]

    features = by_hand(state, images, 16, 8, F.gelu)

    logits = F.linear(features, model.head.linear.weight, model.head.linear.bias)  # type: ignore[union-attr,arg-type]
    torch.testing.assert_close(model(images), logits, atol=1e-5, rtol=1e-5)


def test_logits_of_labml_are_those_of_a_vit_by_hand() -> None:
    model = build("cifar10_vit_labml", 32, 3, depth=2).eval()
    images = torch.randn(2, 3, 32, 32)

    features = by_hand(model.encoder.vit.state_dict(), images, 4, 8, F.relu)  # type: ignore[union-attr]

    head = dict(model.head.named_parameters())
    hidden = F.linear(features, head["hidden.weight"], head["hidden.bias"]).relu()
    torch.testing.assert_close(
        model(images), F.linear(hidden, head["linear.weight"], head["linear.bias"]), atol=1e-5, rtol=1e-5
    )


def test_dropout_of_d2l_is_everywhere_but_behind_attention() -> None:
    block = build("fashion_mnist_vit_d2l", 96, 1).encoder.vit.blocks[1]  # type: ignore[union-attr]
    rates = block.attn.attn_drop.p, block.attn.proj_drop.p, block.mlp.drop1.p, block.mlp.drop2.p  # type: ignore[union-attr]
    assert rates == (0.1, 0.0, 0.1, 0.1)


def test_weights_start_as_the_originals_do() -> None:
    d2l, labml = build("fashion_mnist_vit_d2l", 96, 1).encoder.vit, build("cifar10_vit_labml", 32, 3).encoder.vit  # type: ignore[union-attr]

    assert d2l.pos_embed.std().item() == pytest.approx(1.0, abs=0.02)  # type: ignore[union-attr,operator]
    assert not d2l.cls_token.any()  # type: ignore[union-attr,operator]
    assert not labml.pos_embed.any()  # type: ignore[union-attr,operator]
    assert labml.cls_token.std().item() == pytest.approx(1.0, abs=0.1)  # type: ignore[union-attr,operator]
    for vit in (d2l, labml):
        weights = [block.mlp.fc1.weight for block in vit.blocks]  # type: ignore[union-attr]
        # Clones of one layer would start alike; torch's default is uniform within 1 / sqrt(fan in).
        assert not torch.equal(weights[0], weights[1])
        assert weights[0].abs().max().item() == pytest.approx(1 / math.sqrt(512), rel=0.01)


def test_positions_of_labml_are_resampled_in_two_dimensions(tmp_path) -> None:
    encoder = build("cifar10_vit_labml", 32, 3, depth=1).encoder
    assert isinstance(encoder, Encoder)
    with torch.no_grad():
        encoder.vit.pos_embed.normal_()
        encoder.vit.pos_embed[:, 1:] = (
            torch.arange(8.0).repeat_interleave(8).view(1, 64, 1)
        )  # the row, in every channel
    save(encoder, tmp_path)

    larger, same = load_encoder(tmp_path, image_size=48), load_encoder(tmp_path, image_size=32)

    assert isinstance(larger, Encoder) and isinstance(same, Encoder)
    table = larger.vit.pos_embed
    assert table.shape == (1, 145, 512)
    assert torch.equal(table[:, 0], encoder.vit.pos_embed[:, 0])
    assert torch.equal(same.vit.pos_embed, encoder.vit.pos_embed)
    grid = table[0, 1:].unflatten(0, (12, 12))
    torch.testing.assert_close(grid, grid[:, :1].expand(-1, 12, -1))  # one value a row
    rows = grid[:, 0, 0]
    assert (rows.diff() > 0).all()
    # Away from the edge, where bicubic sees the table end, the ramp is straight: 8 rows over 12, pixel centres aligned.
    torch.testing.assert_close(rows[3:9], (torch.arange(3, 9) + 0.5) * 8 / 12 - 0.5, atol=1e-3, rtol=0)
