"""ViTs whose blocks are told where tokens stand, by rotary positions or by biases of attention, behind a mask."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import mae
from mae.masking.plan import MaskPlan
from mae.models.autoencoder import MaskedAutoencoder, create_autoencoder
from mae.models.backbones.encoder import Encoder
from mae.models.backbones.places import rotary_positions, seen_bias
from mae.optim.groups import parameter_groups

FAMILIES = {
    "dinov3": "vit_small_patch16_dinov3",
    "eva02": "eva02_tiny_patch14_224",
    "rope": "vit_small_patch16_rope_224",
    "rope mixed": "vit_small_patch16_rope_mixed_ape_224",
    "perception encoder": "vit_pe_core_tiny_patch16_384",
    "no last norm": "vit_pe_spatial_tiny_patch16_512",
    "post-norm, no rotary positions": "eva02_enormous_patch14_clip_224",
    "RMSNorm": "vit_base_patch16_sapiens2",
    "biases": "vit_relpos_small_patch16_rpn_224",
    "biases, class token": "vit_relpos_base_patch16_cls_224",
    "shared biases": "vit_srelpos_small_patch16_224",
    "biases, BEiT": "beit_base_patch16_224",
    "shared biases, BEiT": "beit_base_patch16_224",
}
ROTARY = tuple(family for family in FAMILIES if "biases" not in family and "no rotary" not in family)
BIASED = tuple(family for family in FAMILIES if "biases" in family)
OPTIONS: dict[str, dict[str, Any]] = {
    "RMSNorm": {"num_kv_heads": 1},  # its own number of keys differs by block
    "shared biases": {"rel_pos_type": "bias"},
    "shared biases, BEiT": {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True, "use_abs_pos_emb": True},
}
"""Of timm's."""
SIZES: dict[str, Any] = {"patch_size": 4, "width": 24, "depth": 2, "heads": 2}


def encoder(family: str, **options: Any) -> Encoder:
    torch.manual_seed(0)
    made = Encoder(FAMILIES[family], (16, 24), 3, **{**SIZES, "options": OPTIONS.get(family), **options})
    for parameter in made.parameters():
        if parameter.requires_grad and parameter.ndim < 3:
            torch.nn.init.normal_(parameter, std=0.2)  # layer scales and biases, too
    return made.eval()


def some(batch: int = 3) -> tuple[Tensor, MaskPlan]:
    generator = torch.Generator().manual_seed(1)
    plan = MaskPlan.from_noise(torch.rand(batch, 24, generator=generator), (4, 6), 0.75)
    return torch.randn(batch, 3, 16, 24, generator=generator), plan


@pytest.mark.parametrize("family", FAMILIES)
def test_without_a_plan_it_is_timm_s_bit_for_bit(family: str) -> None:
    model, (images, _) = encoder(family), some()
    assert torch.equal(model(images), model.vit.forward_features(images))
    assert torch.equal(model.encode(model.embed(images)), model(images))


@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_pixels_leave_the_latent_as_it_is(family: str) -> None:
    model, (images, plan) = encoder(family), some()
    rows = torch.arange(24).view(4, 6).repeat_interleave(4, 0).repeat_interleave(4, 1)
    hidden = plan.mask[:, rows].unsqueeze(1)
    latent = model(images, plan)
    assert latent.shape == (3, model.num_prefix_tokens + 6, 24)
    assert torch.equal(model(torch.where(hidden, images + 3, images), plan), latent)
    assert not torch.equal(model(torch.where(hidden, images, images + 3), plan), latent)


@pytest.mark.parametrize("family", FAMILIES)
def test_visible_patches_keep_their_positions(family: str) -> None:
    # All patches, shuffled: each has the token that it has in its place, so what is rotated follows the patch.
    model, (images, _) = encoder(family).double(), some()
    keep = torch.stack([torch.randperm(24, generator=torch.Generator().manual_seed(row)) for row in range(3)])
    plan = MaskPlan(keep, keep[:, :0], torch.zeros(3, 24, dtype=torch.bool), (4, 6))
    whole, shuffled = model(images.double()), model(images.double(), plan)
    first = model.num_prefix_tokens
    back = keep.unsqueeze(-1).expand(-1, -1, 24)
    assert torch.allclose(shuffled[:, :first], whole[:, :first], atol=1e-9)
    assert torch.allclose(shuffled[:, first:], whole[:, first:].gather(1, back), atol=1e-9)


@pytest.mark.parametrize("family", ROTARY)
def test_queries_of_visible_patches_are_turned_as_in_the_whole_image(family: str) -> None:
    model, (images, plan) = encoder(family).double(), some(1)
    found: list[Tensor] = []
    sdpa = torch.nn.functional.scaled_dot_product_attention

    def spy(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
        found.append(q)
        return sdpa(q, k, v, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
        model(images.double(), plan)
        model(images.double())
        model.vit.rope = None
        model(images.double(), plan)
    masked, whole = found[0][0], found[model.depth][0]  # (heads, N, d): queries of the first block
    first = model.num_prefix_tokens
    # The first block's queries are of one token each, so those of the visible patches are those of the whole image.
    assert torch.allclose(masked[:, :first], whole[:, :first], atol=1e-10)
    assert torch.allclose(masked[:, first:], whole[:, first:][:, plan.keep[0]], atol=1e-10)
    unturned = found[2 * model.depth][0]
    assert not torch.allclose(masked[:, first:], unturned[:, first:], atol=1e-3)


def autoencoder(family: str, **options: Any) -> MaskedAutoencoder:
    torch.manual_seed(0)
    return create_autoencoder(
        FAMILIES[family],
        (16, 24),
        3,
        **SIZES,
        options=OPTIONS.get(family),
        **options,
        decoder_width=16,
        decoder_depth=1,
        decoder_heads=2,
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_it_learns_saves_and_loads(family: str, tmp_path: Path) -> None:
    model, (images, plan) = autoencoder(family), some()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        out = model(images, plan)
        out.loss.backward()
        if not losses:
            learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
            assert [name for name, p in learning.items() if p.grad is None] == []
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(out.loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
    again = mae.load_autoencoder(mae.save(model.eval(), tmp_path))
    assert torch.equal(again.eval()(images, plan).prediction, model(images, plan).prediction)


@pytest.mark.parametrize("family", ["dinov3", "rope mixed"])
def test_checkpointing_changes_no_gradient(family: str) -> None:
    images, plan = some()
    gradients = []
    for checkpoints in (False, True):
        model = autoencoder(family)
        if checkpoints:
            model.set_grad_checkpointing()
        model(images, plan).loss.backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_layer_decay_counts_its_blocks_and_frequencies_do_not_decay() -> None:
    model = autoencoder("rope mixed")
    groups = parameter_groups(model, 1.0, 0.1, layer_decay=0.5, depth=2, layer_of=model.encoder.layer_of)
    rates = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    named = dict(model.encoder.named_parameters())
    assert rates[id(named["vit.patch_embed.proj.weight"])] == (0.125, 0.1)
    assert rates[id(named["vit.rope.freqs"])] == (0.125, 0.0)
    assert rates[id(named["vit.blocks.0.attn.proj.weight"])] == (0.25, 0.1)
    assert rates[id(named["vit.blocks.1.attn.proj.weight"])] == (0.5, 0.1)


@pytest.mark.parametrize("family", ["dinov3", "rope"])
def test_class_tokens_are_not_turned(family: str) -> None:
    model = encoder(family, class_tokens=3)
    images, plan = some()
    assert model(images, plan).shape[1] == model.num_prefix_tokens + 6
    assert model.num_prefix_tokens == 3 + (4 if family == "dinov3" else 0)
    assert {block.attn.num_prefix_tokens for block in model.vit.blocks} == {model.num_prefix_tokens}
    assert torch.equal(model(images), model.vit.forward_features(images))


def test_it_says_what_places_its_patches() -> None:
    assert encoder("dinov3").describe().endswith("3 channels, rotary positions")
    with pytest.raises(ValueError, match=r"model\.position_std=0\.02 means nothing to this model.*leave it out$"):
        encoder("dinov3", position_std=0.02)
    with pytest.raises(ValueError, match=r"model\.init=torch is not for vit_small_patch16_dinov3.*choose mae or timm$"):
        encoder("dinov3", init="torch")


def turn(vector: Tensor, row: int, column: int, temperature: float) -> Tensor:
    """Turn the first half of a vector by the column and the second by the row, pair by pair (Heo et al. 2024, RoPE-Axial)."""
    turned = vector.clone()
    quarter = len(vector) // 4
    for half, place in enumerate((column, row)):  # timm's xy
        for pair in range(quarter):
            angle = place * temperature ** (-pair / quarter)
            first = 2 * (half * quarter + pair)
            x, y = vector[first].item(), vector[first + 1].item()
            turned[first] = x * math.cos(angle) - y * math.sin(angle)
            turned[first + 1] = y * math.cos(angle) + x * math.sin(angle)
    return turned


def test_a_loop_from_the_paper_agrees() -> None:
    model, (images, plan) = encoder("rope", width=32).double(), some(1)
    vit = model.vit
    block, heads, first = vit.blocks[0], 2, model.num_prefix_tokens
    tokens = model._embed_visible(images.double(), plan)[0]
    normed = block.norm1(tokens)
    q, k, v = (
        (block.attn.qkv(normed) if hasattr(block.attn, "qkv") else normed).view(len(tokens), 3, heads, -1).unbind(1)
    )
    places = [divmod(patch, model.grid[1]) for patch in plan.keep[0].tolist()]
    attended = []
    for query in range(len(tokens)):
        parts = []
        for head in range(heads):
            turned = [
                [
                    one[i, head] if i < first else turn(one[i, head], *places[i - first], 100.0)
                    for i in range(len(tokens))
                ]
                for one in (q, k)
            ]
            scores = torch.stack([turned[0][query] @ key for key in turned[1]]) / math.sqrt(q.shape[-1])
            parts.append(scores.softmax(0) @ v[:, head])
        attended.append(torch.cat(parts))
    expected = block.attn.proj(torch.stack(attended))
    found = block.attn(normed[None], rope=rotary_positions(vit, (4, 6), plan))[0]
    assert torch.allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("family", BIASED)
def test_biases_between_visible_patches_are_those_of_their_places(family: str) -> None:
    # A loop over images and pairs of tokens, from the biases that timm hands its attention for whole images.
    model, (_, plan) = encoder(family), some()
    first = model.num_prefix_tokens
    whole = torch.randn(2, first + 24, first + 24)
    found = seen_bias(whole[None], plan, first)
    for image, kept in enumerate(plan.keep.tolist()):
        places = [*range(first), *(first + patch for patch in kept)]
        for row, query in enumerate(places):
            for column, key in enumerate(places):
                assert torch.equal(found[image, :, row, column], whole[:, query, key])


@pytest.mark.parametrize("family", BIASED)
def test_biases_are_used_and_learn_behind_a_mask(family: str) -> None:
    model, (images, plan) = encoder(family), some()
    tables = [p for name, p in model.named_parameters() if "rel_pos" in name or "relative_position_bias_table" in name]
    assert tables
    before = model(images, plan)
    before.square().sum().backward()
    assert all(table.grad is not None and table.grad.any() for table in tables)
    with torch.no_grad():
        for table in tables:
            table.add_(torch.randn_like(table))
    assert not torch.allclose(model(images, plan), before, atol=1e-3)


@pytest.mark.parametrize("family", ["biases, BEiT", "shared biases"])
def test_biases_are_resampled_to_another_grid(family: str, tmp_path: Path) -> None:
    small = encoder(family)
    folder = mae.save(small, tmp_path)
    large = mae.load_encoder(folder, image_size=(32, 48))
    assert large.grid == (8, 12)
    table = next(name for name in large.state_dict() if name.endswith("relative_position_bias_table"))
    assert large.state_dict()[table].shape[0] > small.state_dict()[table].shape[0]
    again = mae.load_encoder(folder)
    images, _ = some()
    assert torch.equal(again(images), small(images))


def test_several_class_tokens_are_not_for_biases() -> None:
    with pytest.raises(ValueError, match=r"model\.class_tokens=2 are not for beit_base_patch16_224.*leave them out$"):
        encoder("biases, BEiT", class_tokens=2)


@pytest.mark.parametrize("family", ["dinov3", "biases, BEiT"])
def test_the_last_mlp_of_a_block_can_be_tuned_alone(family: str) -> None:
    model = encoder(family)
    model.freeze_all_but(0.5)
    learns = {name.removeprefix("vit.") for name, p in model.named_parameters() if p.requires_grad}
    assert {name.split(".")[2] for name in learns if name.startswith("blocks.1.")} >= {"norm2", "mlp"}
    assert not [name for name in learns if name.split(".")[2:3] in (["norm1"], ["attn"], ["gamma_1"])]
    assert not [name for name in learns if name.startswith(("blocks.0.", "patch_embed", "pos_embed"))]


@pytest.mark.parametrize("family", ["shared biases", "shared biases, BEiT", "biases, BEiT"])
def test_biases_do_not_decay_and_shared_ones_belong_to_no_last_layer(family: str) -> None:
    model = autoencoder(family)
    groups = parameter_groups(model, 1.0, 0.1, layer_decay=0.5, depth=2, layer_of=model.encoder.layer_of)
    held = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    tables = [(name, p) for name, p in model.encoder.named_parameters() if name.endswith("bias_table")]
    assert tables
    for name, table in tables:
        assert held[id(table)] == ((0.25 if ".0." in name else 0.5) if ".blocks." in name else 0.125, 0.0)
