"""Hiera, of which mask units are hidden."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import mae
from mae.masking.plan import MaskPlan
from mae.models.autoencoder import MaskedAutoencoder, create_autoencoder, create_decoder
from mae.models.backbones.create_backbone import create_backbone
from mae.models.backbones.hiera import HieraEncoder
from mae.models.classifier import Classifier
from mae.models.heads import LinearHead
from mae.objectives.objective import OBJECTIVES
from mae.optim.groups import parameter_groups

OPTIONS = {"stages": [1, 1, 2], "q_pool": 2, "mask_unit_size": [4, 4], "mask_unit_attn": [True, True, False]}


def encoder(**options: Any) -> HieraEncoder:
    torch.manual_seed(0)
    return HieraEncoder(
        "hiera_tiny_224", (16, 24), 3, **{"patch_size": 8, "width": 16, "options": OPTIONS, **options}
    ).eval()


def some(batch: int = 3) -> tuple[Tensor, MaskPlan]:
    generator = torch.Generator().manual_seed(1)
    plan = MaskPlan.from_noise(torch.rand(batch, 6, generator=generator), (2, 3), 0.6)
    return torch.randn(batch, 3, 16, 24, generator=generator), plan


def autoencoder(model: HieraEncoder, **options: Any) -> MaskedAutoencoder:
    objective = OBJECTIVES.create(name="pixels")
    sizes = {"width": 16, "depth": 1, "heads": 2, **options}
    return MaskedAutoencoder(model, create_decoder(model, objective, "self_attention", options=sizes), objective)


def test_without_a_plan_it_is_timm_s_bit_for_bit() -> None:
    model, (images, _) = encoder(), some()
    assert torch.equal(model.trunk(images), model.vit.forward_features(images))
    assert torch.equal(model(images), model.vit.head.norm(model.vit.forward_features(images)))
    model.vit.reset_classifier(5)
    pooled = Classifier(encoder(), LinearHead(64, 5)).eval()
    pooled.encoder.vit.load_state_dict(model.vit.state_dict(), strict=False)
    with torch.no_grad():
        pooled.head.linear.weight.copy_(model.vit.head.fc.weight)
        pooled.head.linear.bias.copy_(model.vit.head.fc.bias)
    assert torch.allclose(pooled(images), model.vit(images), atol=1e-6)


def test_a_model_by_name_is_timm_s_own() -> None:
    import timm

    made = create_backbone("hiera_tiny_224", 224, masked=True)
    assert isinstance(made, HieraEncoder) and (made.patch_size, made.grid, made.width) == (32, (7, 7), 768)
    theirs = timm.create_model("hiera_tiny_224", num_classes=0).state_dict()
    own = made.vit.state_dict()
    assert {name: value.shape for name, value in theirs.items()} == {name: value.shape for name, value in own.items()}


def test_behind_a_mask_it_is_timm_s() -> None:
    model, (images, plan) = encoder(), some()
    theirs = model.vit.forward_features(images, mask=~plan.mask)  # in the order of the image
    order = plan.keep.sort(dim=1).indices
    ours = model.trunk(images, plan).gather(1, order.unsqueeze(-1).expand_as(theirs))
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_hidden_pixels_leave_the_latent_as_it_is() -> None:
    model, (images, plan) = encoder(), some()
    rows = torch.arange(6).view(2, 3).repeat_interleave(8, 0).repeat_interleave(8, 1)
    hidden = plan.mask[:, rows].unsqueeze(1)
    latent = model(images, plan)
    assert latent.shape == (3, 2, 64)
    assert torch.equal(model(torch.where(hidden, images + 3, images), plan), latent)
    assert not torch.equal(model(torch.where(hidden, images, images + 3), plan), latent)


def test_units_that_see_nothing_of_each_other_work_on_their_own() -> None:
    # Attention within units alone: a unit's token is the same whichever others are seen.
    model = encoder(options={**OPTIONS, "mask_unit_attn": [True, True, True]}, patch_size=4).double()
    images = torch.randn(1, 3, 16, 24, dtype=torch.float64)
    whole = model.trunk(images)  # of 4x6 units; a stride of one pixel has a kernel of one
    keep = torch.tensor([[7, 3, 20]])
    mask = torch.ones(1, 24, dtype=torch.bool).scatter(1, keep, False)
    plan = MaskPlan(keep, mask.nonzero()[:, 1][None], mask, (4, 6))
    assert torch.allclose(model.trunk(images, plan), whole[:, keep[0]], atol=1e-12)


def test_it_learns_saves_and_loads(tmp_path: Path) -> None:
    model, (images, plan) = autoencoder(encoder()).train(), some()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        out = model(images, plan)
        out.loss.backward()
        if not losses:
            assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(out.loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
    again = mae.load_autoencoder(mae.save(model.eval(), tmp_path))
    assert torch.equal(again.eval()(images, plan).prediction, model(images, plan).prediction)


def test_a_larger_image_resamples_its_positions(tmp_path: Path) -> None:
    small = encoder()
    large = mae.load_encoder(mae.save(small, tmp_path), image_size=(32, 48))
    assert large.grid == (4, 6)
    assert large(torch.zeros(1, 3, 32, 48)).shape == (1, 24, 64)


def test_checkpointing_changes_no_gradient() -> None:
    images, plan = some()
    gradients = []
    for checkpoints in (False, True):
        model = autoencoder(encoder()).train()
        if checkpoints:
            model.set_grad_checkpointing()
        model(images, plan).loss.backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_layer_decay_counts_its_blocks_and_the_last_ones_can_be_tuned_alone() -> None:
    model = encoder()
    groups = parameter_groups(autoencoder(model), 1.0, 0.1, layer_decay=0.5, depth=4, layer_of=model.layer_of)
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    named = dict(model.named_parameters())
    assert rates[id(named["vit.pos_embed"])] == 0.5**5
    assert rates[id(named["vit.blocks.0.attn.proj.weight"])] == 0.5**4
    assert rates[id(named["vit.blocks.3.attn.proj.weight"])] == 0.5
    assert rates[id(named["vit.head.norm.weight"])] == 1.0
    model.freeze_all_but(1.5)
    learns = {name for name, p in model.named_parameters() if p.requires_grad}
    last = {name for name in named if name.startswith(("vit.blocks.3.", "vit.head.norm."))}
    assert learns - last == {name for name in named if name.startswith(("vit.blocks.2.norm2.", "vit.blocks.2.mlp."))}


def test_maps_are_those_of_its_stages() -> None:
    model, (images, _) = encoder(), some()
    maps = model.maps(images)
    assert [part.shape[1] for part in maps] == [*model.map_widths] == [16, 32, 64]
    assert [16 // part.shape[2] for part in maps] == [*model.map_strides] == [2, 4, 8]
    assert torch.allclose(maps[-1].flatten(2).transpose(1, 2), model(images), atol=1e-6)


def test_levels_are_those_of_the_last_stage() -> None:
    model, (images, plan) = encoder(), some()
    assert model.levels_at_most == 2
    first, last = model.levels(images, plan, 2)
    assert first.shape == last.shape and torch.equal(last, model(images, plan))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"patch_size": 6}, r"model\.patch_size=6 is not divisible into the 4x4 tokens.*choose a multiple of 4$"),
        ({"patch_size": 12}, "image_size 16x24 is not divisible by the patch size 12"),
        (
            {"options": {**OPTIONS, "q_pool": 1}},
            r"do not leave one token of a mask unit: with 3 stages choose q_pool=2 and mask_unit_size=\[4,4\]$",
        ),
        ({"options": {"stages": [1, 1]}}, r"with 2 stages choose q_pool=1 and mask_unit_size=\[2,2\]$"),
        ({"options": {**OPTIONS, "img_size": 32}}, r"model\.options\.img_size is set by the encoder itself"),
        ({"options": {**OPTIONS, "sizes": 3}}, r"timm cannot build hiera_tiny_224 with these options"),
        (
            {"options": {**OPTIONS, "mask_unit_size": 4}},
            r"mask_unit_size=4 is not two equal whole numbers, such as \[2,2\]$",
        ),
        ({"options": {**OPTIONS, "q_stride": [2, 1]}}, r"q_stride=\(2, 1\) is not two equal whole numbers"),
        (
            {"options": {**OPTIONS, "patch_stride": [4, 2]}, "patch_size": None},
            r"patch_stride=\(4, 2\) is not two equal whole numbers",
        ),
        ({"options": {**OPTIONS, "stages": 3}}, r"model\.options\.stages=3 is not a list of how many blocks"),
        ({"width": 10, "heads": 4}, r"model\.width=10 is not divisible by model\.heads=4"),
        ({"init": "torch"}, r"model\.init='torch' is not for hiera_tiny_224: choose mae or timm"),
    ],
)
def test_what_does_not_fit_is_one_line(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says) as failed:
        encoder(**changes)
    assert "\n" not in str(failed.value)


def test_an_image_of_one_unit_hides_nothing() -> None:
    with pytest.raises(ValueError, match="image_size 16x24 is not divisible by the patch size 32"):
        create_autoencoder("vit_tiny_patch16_224", (16, 24), patch_size=32)
    with pytest.raises(ValueError, match=r"hides 1 of 1 patches|at least one must"):
        MaskPlan.from_noise(torch.rand(1, 1), HieraEncoder("hiera_tiny_224", 32).grid, 0.75)


def test_the_table_of_windows_belongs_to_the_embeddings_and_does_not_decay() -> None:
    model = HieraEncoder("hiera_small_abswin_256", 32, patch_size=8, width=16, options=OPTIONS)
    groups = parameter_groups(autoencoder(model), 1.0, 0.1, layer_decay=0.5, depth=4, layer_of=model.layer_of)
    held = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert held[id(model.vit.pos_embed_win)] == held[id(model.vit.pos_embed)] == (0.5**5, 0.0)
