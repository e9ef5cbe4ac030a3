"""Several class tokens in place of one, as Pixio has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import mae
from mae.masking.plan import MaskPlan
from mae.models.autoencoder import create_autoencoder
from mae.models.backbones.encoder import Encoder
from mae.models.classifier import Classifier, check_pool, pool_tokens, pooled_width
from mae.models.heads import LinearHead

SMALL: dict[str, Any] = {"patch_size": 4, "width": 24, "depth": 2, "heads": 2}


def encoder(name: str = "vit_tiny_patch16_224", **options: Any) -> Encoder:
    torch.manual_seed(0)
    return Encoder(name, 16, 3, **{**SMALL, **options}).eval()


@pytest.mark.parametrize("positions", ["sincos", "learned"])
@pytest.mark.parametrize("registers", [0, 2])
def test_tokens_are_class_tokens_then_registers_then_patches(positions: str, registers: int) -> None:
    options = {"reg_tokens": registers} if registers else {}
    many = encoder(class_tokens=3, positions=positions, options=options)
    assert (many.class_tokens, many.num_prefix_tokens) == (3, 3 + registers)
    images = torch.randn(2, 3, 16, 16)
    tokens = many(images)
    assert tokens.shape == (2, 3 + registers + 16, 24)
    assert torch.equal(tokens, many.vit.forward_features(images))
    plan = MaskPlan.from_noise(torch.rand(2, 16), many.grid, 0.75)
    assert many(images, plan).shape == (2, 3 + registers + 4, 24)
    assert len({tuple(row) for row in tokens[0, :3].tolist()}) == 3  # each has weights of its own


def test_one_class_token_is_the_model_as_it_was() -> None:
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(encoder(class_tokens=1)(images), encoder()(images))


def test_class_tokens_are_pooled_as_their_mean_or_side_by_side() -> None:
    many = encoder(class_tokens=3)
    tokens = many(torch.randn(2, 3, 16, 16))
    assert torch.allclose(pool_tokens(many, tokens, "token"), tokens[:, :3].mean(dim=1))
    assert torch.equal(pool_tokens(many, tokens, "tokens"), torch.cat([tokens[:, place] for place in range(3)], dim=1))
    assert torch.equal(pool_tokens(many, tokens, "mean"), tokens[:, 3:].mean(dim=1))
    assert [pooled_width(many, pool) for pool in ("mean", "token", "tokens")] == [24, 24, 72]
    head = LinearHead(pooled_width(many, "tokens"), 5, batch_norm=True)
    assert Classifier(many, head, pool="tokens", blocks=0)(torch.randn(4, 3, 16, 16)).shape == (4, 5)


def test_every_class_token_learns_and_a_checkpoint_keeps_them(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create_autoencoder(
        "vit_tiny_patch16_224", 16, 3, **SMALL, class_tokens=3, decoder_width=16, decoder_depth=1, decoder_heads=2
    )
    plan = MaskPlan.from_noise(torch.rand(2, 16), model.grid, 0.75)
    images = torch.randn(2, 3, 16, 16)
    model(images, plan).loss.backward()
    token = model.encoder.vit.cls_token
    assert token.shape == (1, 3, 24) and bool((token.grad.abs().sum(dim=2) > 0).all())
    again = mae.load_autoencoder(mae.save(model, tmp_path))
    assert torch.equal(again.eval().encoder(images), model.eval().encoder(images))


def test_timm_s_names_alone_tell_how_many_there_are(tmp_path: Path) -> None:
    many = encoder(class_tokens=3, positions="learned", heads=None)
    torch.save(many.vit.state_dict(), tmp_path / "many.pth")
    again = mae.load_encoder(tmp_path / "many.pth", image_size=16)
    assert again.class_tokens == 3
    assert torch.equal(again.vit.cls_token, many.vit.cls_token)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "vit_tiny_patch16_224",
            {"class_tokens": 0},
            r"model\.class_tokens=0 is no number of tokens: choose 1 or more",
        ),
        (
            "vit_tiny_patch16_224",
            {"class_tokens": 2, "options": {"class_token": False}},
            r"model\.class_tokens=2 are not for vit_tiny_patch16_224, which has no class token: leave them out$",
        ),
    ],
)
def test_what_cannot_be_is_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encoder(name, **options)


@pytest.mark.parametrize("pool", ["token", "tokens"])
def test_pooling_class_tokens_that_are_not_there_is_refused(pool: str) -> None:
    bare = encoder(options={"class_token": False})
    with pytest.raises(ValueError, match=rf"pool={pool} needs a class token.*choose pool=mean$"):
        check_pool(bare, pool)
