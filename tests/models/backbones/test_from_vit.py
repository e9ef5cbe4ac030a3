"""An encoder around a ViT object of one's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

import mae
from mae.masking.plan import MaskPlan
from mae.models.autoencoder import MaskedAutoencoder, create_decoder
from mae.models.backbones.encoder import Encoder
from mae.objectives.objective import OBJECTIVES

SMALL: dict[str, Any] = {"img_size": (16, 24), "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2}


class Own(VisionTransformer):  # type: ignore[misc]
    def forward_features(self, x: Tensor, **options: Any) -> Tensor:
        return 5 * super().forward_features(x, **options)


class Loud(Block):  # type: ignore[misc]
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


OBJECTS: dict[str, Callable[[], nn.Module]] = {
    "by name": lambda: timm.create_model("vit_tiny_patch16_224", **SMALL),
    "by class": lambda: VisionTransformer(
        **SMALL, num_classes=7, class_token=False, global_pool="avg", reg_tokens=3, qk_norm=True, pre_norm=True
    ),
    "layer scale": lambda: VisionTransformer(
        **SMALL, init_values=0.1, proj_drop_rate=0.1, drop_path_rate=0.2, mlp_ratio=3
    ),
    "pooled first": lambda: VisionTransformer(**SMALL, global_pool="avg", fc_norm=True, in_chans=2),
    "attention pool": lambda: timm.create_model("vit_base_patch16_siglip_224", **SMALL),
    "rotary": lambda: timm.create_model("vit_small_patch16_dinov3", **SMALL, dynamic_img_size=False),
    "swiglu": lambda: timm.create_model("eva02_tiny_patch14_224", **SMALL),
    "biases": lambda: timm.create_model("vit_relpos_small_patch16_224", **SMALL),
    "rounded width": lambda: timm.create_model("eva02_tiny_patch14_224", **{**SMALL, "embed_dim": 152}),
    "beit": lambda: timm.create_model("beit_base_patch16_224", **SMALL),
}


def some(channels: int = 3) -> tuple[Tensor, MaskPlan]:
    generator = torch.Generator().manual_seed(1)
    plan = MaskPlan.from_noise(torch.rand(2, 24, generator=generator), (4, 6), 0.75)
    return torch.randn(2, channels, 16, 24, generator=generator), plan


def around(vit: nn.Module) -> MaskedAutoencoder:
    encoder, objective = Encoder.from_vit(vit), OBJECTIVES.create(name="pixels")
    options = {"width": 16, "depth": 1, "heads": 2}
    return MaskedAutoencoder(encoder, create_decoder(encoder, objective, "self_attention", options=options), objective)


@pytest.mark.parametrize("kind", OBJECTS)
def test_it_is_held_gives_its_tokens_and_saves(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    vit = OBJECTS[kind]().eval()
    channels = 2 if kind == "pooled first" else 3
    images, plan = some(channels)
    theirs, normed_later = vit.forward_features(images).detach(), isinstance(vit.norm, nn.Identity)
    model = around(vit)
    assert model.encoder.vit is vit
    assert torch.equal((model.encoder.trunk if normed_later else model.encoder)(images), theirs)
    model.train()(images, plan).loss.backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    again = mae.load_autoencoder(mae.save(model.eval(), tmp_path))
    assert torch.equal(again.eval()(images, plan).prediction, model(images, plan).prediction)


def test_one_that_no_options_build_trains_and_is_not_saved_wrongly(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = around(VisionTransformer(**SMALL, block_fn=Loud))
    images, plan = some()
    out = model(images, plan)
    out.loss.backward()
    assert model.encoder.vit.blocks[0].attn.qkv.weight.grad.any()
    with pytest.raises(ValueError, match=r"holds a ViT object that no name and options.*encoder\.vit\.state_dict\(\)"):
        mae.save(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_hybrid_of_timm_s_saves() -> None:
    encoder = Encoder.from_vit(
        timm.create_model("vit_tiny_r_s16_p8_224", img_size=64, embed_dim=24, depth=1, num_heads=2)
    )
    assert encoder.config["name"] == "vit_tiny_r_s16_p8_224" and encoder.in_channels == 3


def test_dropout_that_one_image_does_not_show_is_seen() -> None:
    vit = VisionTransformer(**SMALL)
    vit.blocks[1].mlp.drop1 = nn.Dropout(0.3)
    assert Encoder.from_vit(vit).config == {}


@pytest.mark.parametrize(
    ("vit", "says"),
    [
        (nn.Linear(2, 2), r"of the class Linear, and no plain ViT"),
        (Own(**SMALL), r"of the class Own, whose own forward_features would be passed over"),
        (
            VisionTransformer(**SMALL, patch_drop_rate=0.5),
            r"drops patches at random, which a masking does here: leave it out$",
        ),
        (VisionTransformer(**SMALL, dynamic_img_size=True), r"takes images of any size.*dynamic_img_size=False$"),
    ],
)
def test_what_cannot_be_held_is_refused(vit: nn.Module, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Encoder.from_vit(vit)


def test_dropping_patches_at_random_is_refused_by_name_too() -> None:
    says = r"patch_drop_rate of .* drops patches at random, which a masking does here: leave it out$"
    with pytest.raises(ValueError, match=says):
        Encoder("vit_tiny_patch16_224", 16, patch_size=4, width=24, depth=1, heads=2, options={"patch_drop_rate": 0.5})


def test_the_generator_is_left_where_it_was() -> None:
    vit = VisionTransformer(**SMALL)
    before = torch.get_rng_state()
    Encoder.from_vit(vit)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_layer_that_its_class_does_not_have_is_held() -> None:
    vit = timm.create_model("vit_relpos_small_patch16_224", **SMALL)
    vit.pos_drop = nn.Dropout(0.1)
    assert Encoder.from_vit(vit).config == {}
