"""Decoders that predict a share of the hidden patches, look at the visible ones alone, or take several levels."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import mae
from mae.masking.noise import image_keys
from mae.masking.samplers import MASKINGS
from mae.models.autoencoder import MaskedAutoencoder, create_autoencoder
from mae.models.cost import training_multiply_adds
from tests.oracle import layer_norm, linear, position, standardise

GRID, PATCH, HEADS = (3, 4), 4, 2


def small(decoder: str = "cross_attention", **options: Any) -> MaskedAutoencoder:
    torch.manual_seed(0)
    model = create_autoencoder(
        "vit_tiny_patch16_224", (12, 16), 1, patch_size=PATCH, width=16, depth=3, heads=2,
        decoder=decoder, decoder_width=8, decoder_depth=2, decoder_heads=HEADS, decoder_options=options,
    )  # fmt: skip
    for parameter in model.parameters():  # biases and tokens too
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.double()


def batch(images: int = 3, name: str = "random", **options: Any) -> tuple[Tensor, mae.MaskPlan]:
    generator = torch.Generator().manual_seed(1)
    plan = MASKINGS.create(name=name, options=options).of_images(image_keys(0, torch.arange(images)), GRID)
    return torch.randn(images, 1, 12, 16, generator=generator, dtype=torch.float64), plan


def attend(state: dict[str, Tensor], name: str, token: Tensor, context: list[Tensor]) -> Tensor:
    """Return what one token takes of others, head by head and one after the other."""
    query = linear(state, f"{name}.query", token)
    pairs = [linear(state, f"{name}.key_value", other) for other in context]
    D = len(query)
    d, mixed = D // HEADS, []
    for head in range(HEADS):
        part = slice(head * d, (head + 1) * d)
        scores = [float(query[part] @ pair[:D][part]) / math.sqrt(d) for pair in pairs]
        weights = [math.exp(score - max(scores)) for score in scores]
        mixed.append(
            sum(
                (weight / sum(weights) * pair[D:][part] for weight, pair in zip(weights, pairs, strict=True)),
                torch.zeros(d, dtype=torch.float64),
            )
        )
    return linear(state, f"{name}.proj", torch.cat(mixed))


def cross_attention_by_loops(state: dict[str, Tensor], levels: list[list[Tensor]], patch: int, depth: int) -> Tensor:
    """Predict one hidden patch from the encoder's tokens, as CrossMAE's paper says (section 3.2 and 3.3)."""
    token = state["decoder.mask_token"][0, 0] + position(patch, 8, GRID)
    for number in range(depth):
        name = f"decoder.blocks.{number}"
        context = levels[-1]
        if "decoder.mix" in state:
            shares = state["decoder.mix"][number].tolist()
            context = [
                layer_norm(
                    state,
                    f"decoder.context_norms.{number}",
                    sum((share * one for share, one in zip(shares, tokens, strict=True)), torch.zeros_like(tokens[0])),
                )
                for tokens in zip(*levels, strict=True)
            ]
        token = token + attend(state, name, layer_norm(state, f"{name}.norm1", token), context)
        hidden = linear(state, f"{name}.mlp.fc1", layer_norm(state, f"{name}.norm2", token))
        gelu = torch.tensor([0.5 * x * (1 + math.erf(x / math.sqrt(2))) for x in hidden.tolist()], dtype=torch.float64)
        token = token + linear(state, f"{name}.mlp.fc2", gelu)
    return linear(state, "decoder.predict", layer_norm(state, "decoder.norm", token))


@pytest.mark.parametrize("fuse", [0, 2, 3])
def test_cross_attention_is_that_of_loops_over_patches(fuse: int) -> None:
    model, (images, plan) = small(fuse=fuse).eval(), batch()
    out = model(images, plan)
    state = dict(model.state_dict())
    levels = model.encoder.levels(images, plan, max(1, fuse))
    assert torch.equal(levels[-1], model.encoder(images, plan))
    errors = []
    for row in range(len(images)):
        tokens = [list(level[row]) for level in levels]
        for place, patch in enumerate(plan.masked[row].tolist()):
            guess = cross_attention_by_loops(state, tokens, patch, depth=2)
            assert torch.allclose(out.prediction[row, place], guess, atol=1e-10, rtol=0)
            top, left = (PATCH * part for part in divmod(patch, GRID[1]))
            truth = standardise(images[row, 0, top : top + PATCH, left : left + PATCH].flatten())
            errors.append(float(((guess - truth) ** 2).mean()))
    assert float(out.loss) == pytest.approx(sum(errors) / len(errors), abs=1e-10)


@pytest.mark.parametrize("decoder", ["self_attention", "cross_attention"])
def test_in_training_a_share_is_predicted_as_it_would_be_among_all(decoder: str) -> None:
    model, (images, plan) = small(decoder, predict_fraction=0.5), batch()
    whole = model.eval()(images, plan)
    assert whole.prediction.shape[1] == 9
    part = model.train()(images, plan)
    assert part.prediction.shape[1] == 4  # of 9; half goes to the even number
    assert torch.allclose(part.prediction, whole.prediction[:, :4], atol=1e-12)
    assert torch.equal(part.target, whole.target[:, :4])
    assert float(part.loss) == pytest.approx(float((part.prediction - part.target).square().mean()), abs=1e-12)


def test_the_last_block_gives_what_a_whole_one_gives() -> None:
    model, (images, plan) = small("self_attention").eval(), batch()
    decoder = model.decoder
    latent = model.encoder(images, plan)
    whole = {}
    last = decoder.blocks[-1]
    last.register_forward_pre_hook(lambda _, given: whole.update(tokens=given[0]))
    found = decoder(latent, plan)
    tokens = super(type(last), last).forward(whole["tokens"])[:, decoder.num_prefix_tokens :]
    expected = decoder.predict(decoder.norm(mae.masking.plan.gather_patches(tokens, plan.masked)))
    assert torch.allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("name", ["random", "block", "grid"])
def test_what_is_predicted_at_a_step_is_spread_over_the_image(name: str) -> None:
    plan = MASKINGS.create(name=name).of_images(image_keys(0, torch.arange(4000)), (4, 4))
    model = small(predict_fraction=0.5).train()
    chosen = model.decoder.predicted(plan)
    often = torch.zeros(4000, 16).scatter(1, chosen, 1.0).sum(0) / plan.mask.sum(0)
    assert often.tolist() == pytest.approx([0.5] * 16, abs=0.06)


@pytest.mark.parametrize("fuse", [0, 2])
def test_every_weight_learns_and_hidden_pixels_are_not_seen(fuse: int) -> None:
    model, (images, plan) = small(fuse=fuse).train(), batch()
    model(images, plan).loss.backward()
    learning = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    without = [name for name in learning if (grad := model.get_parameter(name).grad) is None or not grad.abs().sum()]
    assert without == []
    model.eval()
    before = model(images, plan).prediction
    rows = torch.arange(GRID[0] * GRID[1]).view(GRID).repeat_interleave(PATCH, 0).repeat_interleave(PATCH, 1)
    hidden = plan.mask[:, rows].unsqueeze(1)
    assert torch.equal(model(torch.where(hidden, images + 1, images), plan).prediction, before)


def test_checkpointing_changes_no_gradient() -> None:
    images, plan = batch()
    gradients = []
    for checkpoints in (False, True):
        model = small(fuse=2).train()
        if checkpoints:
            model.set_grad_checkpointing()
        model(images, plan).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters() if parameter.requires_grad])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_a_share_costs_less_at_a_step() -> None:
    _, plan = batch(1)
    costs = [training_multiply_adds(small(predict_fraction=share).float(), plan) for share in (1.0, 0.5)]
    assert 0.5 < costs[1] / costs[0] < 0.95


def test_it_is_saved_and_loaded(tmp_path) -> None:  # type: ignore[no-untyped-def]
    model, (images, plan) = small(fuse=2, predict_fraction=0.25).float().eval(), batch()
    again = mae.load_autoencoder(mae.save(model, tmp_path))
    assert again.decoder.predict_fraction == 0.25
    assert torch.equal(again.eval()(images.float(), plan).prediction, model(images.float(), plan).prediction)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"predict_fraction": 0}, r"decoder\.predict_fraction=0 is no share of the hidden patches: .* such as 0\.5$"),
        ({"predict_fraction": 1.5}, r"decoder\.predict_fraction=1\.5 is no share"),
        ({"fuse": -1}, r"decoder\.fuse=-1 is no number of blocks"),
        (
            {"fuse": 4},
            r"decoder\.fuse=4 takes the tokens of more blocks than the 3 of vit_tiny_patch16_224: choose from 0 to 3$",
        ),
    ],
)
def test_shares_and_levels_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**options)


def test_a_decoder_without_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"decoder\.depth=0 leaves no block"):
        create_autoencoder("vit_tiny_patch16_224", 32, patch_size=16, decoder_depth=0)
