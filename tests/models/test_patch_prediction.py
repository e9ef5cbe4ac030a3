"""Masked patch prediction, against the ViT paper's appendix B.1.2."""

from __future__ import annotations

import math

import pytest
import torch

from mae.evaluation.reconstruct import reconstruct
from mae.masking.corruption import MASKED, CorruptionPlan
from mae.masking.samplers import RandomCorruption
from mae.masking.seeds import seeded_generator
from mae.models.backbones.encoder import Encoder
from mae.models.layers.patches import patchify
from mae.models.patch_prediction import MaskedPatchPredictor
from mae.objectives.corrupted_patches import TARGETS, CorruptedPatches

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def build(target: str = "mean_colour", **changes: object) -> MaskedPatchPredictor:
    torch.manual_seed(0)
    sizes = {"image_size": 16, "patch_size": 4, "width": 32, "depth": 2, "heads": 2, **changes}
    encoder = Encoder("vit_tiny_patch16_224", **sizes)  # type: ignore[arg-type]
    encoder.set_pixel_statistics(MEAN[: encoder.in_channels], STD[: encoder.in_channels])
    return MaskedPatchPredictor(encoder, CorruptedPatches(target)).eval()


def draw(batch: int = 2, seed: int = 0) -> CorruptionPlan:
    return RandomCorruption().plan(torch.rand(batch, 3, 16, generator=torch.Generator().manual_seed(seed)), (4, 4))


def standardized(pixels: torch.Tensor) -> torch.Tensor:
    return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


@pytest.mark.parametrize(
    ("target", "shape"), [("mean_colour", (8, 1, 512)), ("colours_4x4", (8, 16, 512)), ("pixels", (8, 48))]
)
def test_every_target_is_predicted_for_the_corrupted_patches_alone(target: str, shape: tuple[int, ...]) -> None:
    model, pixels = build(target), torch.rand(2, 3, 16, 16)
    out = model(standardized(pixels), draw())

    assert out.prediction.shape == (2, *shape)
    assert out.target.shape == (2, *(shape if target == "pixels" else shape[:2]))
    out.loss.backward()
    assert all(parameter.grad is not None for name, parameter in model.named_parameters() if parameter.requires_grad)


def test_colours_are_those_of_the_pixels_before_standardisation() -> None:
    pixels = torch.tensor([1, 0.5, 0]).view(1, 3, 1, 1).expand(1, 3, 16, 16)
    model = build()
    assert model(standardized(pixels), draw(1)).target.unique().tolist() == [480]
    model.encoder.set_pixel_statistics([0.0] * 3, [1.0] * 3)  # measured anew, on other data
    assert model(pixels, draw(1)).target.unique().tolist() == [480]


@pytest.mark.parametrize("target", ["mean_colour", "colours_4x4"])
def test_the_loss_starts_near_that_of_a_guess(target: str) -> None:
    loss = build(target, width=192, heads=3)(standardized(torch.rand(8, 3, 16, 16)), draw(8)).loss.item()
    assert loss == pytest.approx(math.log(512), abs=0.05)


def test_what_a_masked_patch_holds_never_enters() -> None:
    model, pixels, plan = build(), torch.rand(2, 3, 16, 16), draw()
    used = torch.zeros(2, 16, dtype=torch.bool).scatter(1, plan.source.clamp(min=0), True)
    used &= torch.zeros(2, 16).scatter_add(1, plan.source.clamp(min=0), (plan.source != MASKED).float()) > 0
    assert (~used).any()

    images = standardized(pixels).requires_grad_()
    model(images, plan).prediction.square().sum().backward()

    gradient = patchify(images.grad, 4).abs().amax(dim=-1)  # type: ignore[arg-type]
    assert torch.equal(gradient > 0, used)


def test_a_swapped_patch_shows_the_other_and_is_asked_for_its_own() -> None:
    model, pixels = build(), torch.rand(1, 3, 16, 16)
    own = torch.arange(16).unsqueeze(0)
    order = torch.cat([own[:, 1:], own[:, :1]], dim=1)
    source = own.clone()
    source[0, 0] = 5
    plan = CorruptionPlan(order[:, :15], order[:, 15:], own == 0, (4, 4), source)
    swapped = patchify(pixels, 4)
    swapped[0, 0] = swapped[0, 5]
    images = standardized(pixels)

    embeddings = plan.hide(model.encoder.embed(images), model.mask_embedding)

    expected = model.encoder.embed(standardized(pixels))
    expected[0, 0] = expected[0, 5]
    torch.testing.assert_close(embeddings, expected)
    red, green, blue = (8 * pixels[0, :, :4, :4].mean(dim=(1, 2))).long().tolist()
    assert model(images, plan).target.item() == 64 * red + 8 * green + blue


def test_an_uncorrupted_encoding_is_that_of_the_encoder() -> None:
    encoder = build().encoder
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(encoder.encode(encoder.embed(images)), encoder(images))


@pytest.mark.parametrize("options", [{}, {"reg_tokens": 2}], ids=["class token", "registers too"])
def test_each_corrupted_patch_is_predicted_from_its_own_token(options: dict[str, object]) -> None:
    model, images, plan = build("pixels", options=options), torch.randn(2, 3, 16, 16), draw()
    embeddings = plan.hide(model.encoder.embed(images), model.mask_embedding)
    patches = model.encoder.encode(embeddings)[:, -16:]
    own = torch.stack([patches[image, plan.masked[image]] for image in range(2)])

    torch.testing.assert_close(model(images, plan).prediction, model.predict(own))


@pytest.mark.parametrize("target", TARGETS)
def test_it_learns_one_batch_by_heart_and_shows_it(target: str) -> None:
    model, plan = build(target).train(), draw(4)
    colours = torch.rand(4, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    images = standardized(colours.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        loss = model(images, plan).loss
        loss.backward()
        optimizer.step()

    assert loss.item() < 0.05
    shown = reconstruct(model, images, plan).pasted
    error = (shown - images) * torch.tensor(STD).view(3, 1, 1)
    assert error.abs().max() < (0.3 if target == "pixels" else 1 / 16 + 1e-4)  # a bin is an eighth wide


@pytest.mark.parametrize(
    ("target", "changes", "says"),
    [
        ("colour", {}, r"objective\.target='colour' is unknown: choose one of mean_colour, colours_4x4, pixels"),
        ("mean_colour", {"in_channels": 1}, r"predicts colours, and data\.channels=1: data\.channels=3 shows grey"),
        ("colours_4x4", {"patch_size": 2}, r"cuts patches into 4x4, and model\.patch_size=2"),
        (
            "pixels",
            {"image_size": 32, "patch_size": None, "cnn": {"name": "resnet26d", "level": 1}},
            "masked ones would leak through its receptive field; choose objective=pixels",
        ),
    ],
)
def test_targets_that_do_not_fit_are_refused(target: str, changes: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        build(target, **changes)


def test_a_plan_that_hides_patches_is_refused(random_plan) -> None:
    with pytest.raises(ValueError, match="needs masking=corruption"):
        build()(torch.zeros(2, 3, 16, 16), random_plan(2, (4, 4)))


def test_draws_are_functions_of_the_seed() -> None:
    sampler = RandomCorruption()
    first, second = (sampler(2, (4, 4), seeded_generator("cpu", 5)) for _ in range(2))
    assert isinstance(first, CorruptionPlan) and isinstance(second, CorruptionPlan)
    assert torch.equal(first.source, second.source)
