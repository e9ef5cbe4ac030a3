"""Models from parts, the project's and those of others: trained, stored, and built again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.layers import DropPath

import mae
from mae.checkpoints.load import encoder_from
from mae.checkpoints.read import read_checkpoint
from mae.masking.samplers import MASKINGS
from mae.masking.seeds import seeded_generator
from mae.models.autoencoder import MaskedAutoencoder
from mae.models.backbones.create_backbone import create_backbone
from mae.models.create_masked_model import Part, create_masked_model, rebuild_masked_model
from mae.models.masked_model import MaskedModel
from mae.models.patch_prediction import MaskedPatchPredictor
from mae.objectives.pixels import Pixels
from tests.conftest import TINY

VIT = {
    "name": "vit_tiny_patch16_224",
    "image_size": 16,
    "in_channels": 3,
    "patch_size": 4,
    "width": 32,
    "depth": 2,
    "heads": 2,
}
OWN = {"_target_": "tests.outside.PatchMLP", "image_size": (16, 16), "in_channels": 3, "width": 8}
LIGHT = Part("self_attention", None, {"width": 16, "depth": 1, "heads": 2})
MEAN = Part(None, "tests.outside.MeanDecoder", {"scale": 0.5})
MEANS = Part(None, "tests.outside.PatchMeans", {"power": 1})
PIXELS = Part("pixels", None, {"normalize": True})
COLUMNS = Part(None, "tests.outside.ColumnMasking", {"columns": 2})
RANDOM = Part("random", None, {"ratio": 0.75})

OUTSIDE: dict[str, tuple[Any, ...]] = {
    "a mask": (VIT, LIGHT, PIXELS, COLUMNS),
    "a decoder": (VIT, MEAN, PIXELS, RANDOM),
    "an objective": (VIT, LIGHT, MEANS, RANDOM),
    "a backbone": (OWN, LIGHT, PIXELS, RANDOM),
    "all four": (OWN, MEAN, MEANS, COLUMNS),
}


def build(encoder: dict[str, Any], decoder: Part, objective: Part) -> MaskedModel:
    torch.manual_seed(0)
    model = create_masked_model(encoder, decoder, objective)
    model.encoder.set_pixel_statistics([0.5] * 3, [0.25] * 3)
    return model


@pytest.mark.parametrize(("encoder", "decoder", "objective", "masking"), OUTSIDE.values(), ids=OUTSIDE)
def test_parts_of_others_train_and_come_back_from_a_file(encoder, decoder, objective, masking, tmp_path) -> None:
    model = build(encoder, decoder, objective)
    sampler = MASKINGS.create(**masking._asdict())
    plan = sampler(2, model.grid, seeded_generator("cpu", 0))
    assert plan.keep.shape[1] == sampler.check(model.grid)
    images = torch.randn(2, 3, 16, 16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        out = model(images, plan)
        out.loss.backward()
        optimizer.step()
        losses.append(out.loss.item())
    assert losses[2] < losses[0]
    hidden = torch.randn(2, plan.masked.shape[1], 48)
    assert model.as_patches(out.prediction.detach(), hidden).shape == hidden.shape

    again = mae.load_autoencoder(mae.save(model, tmp_path / "model"))

    assert torch.equal(again(images, plan).loss, model(images, plan).loss)
    assert again.config == model.config
    assert torch.equal(mae.load_encoder(tmp_path / "model").eval()(images), model.encoder.eval()(images))


def test_the_config_of_what_is_not_registered_is_its_path_and_its_options() -> None:
    config = build(OWN, MEAN, MEANS).config
    assert config == {
        "encoder": {"_target_": "tests.outside.PatchMLP", "image_size": [16, 16], "in_channels": 3, "width": 8},
        "decoder": {"_target_": "tests.outside.MeanDecoder", "scale": 0.5},
        "objective": {"_target_": "tests.outside.PatchMeans", "power": 1},
    }


def test_a_backbone_of_ones_own_is_read_at_another_size(tmp_path) -> None:
    model = build(OWN, MEAN, PIXELS)
    checkpoint = read_checkpoint(mae.save(model.encoder, tmp_path))
    larger, _ = encoder_from(checkpoint, image_size=24)
    assert larger.image_size == (24, 24) and larger(torch.randn(1, 3, 24, 24)).shape == (1, 36, 8)
    with pytest.raises(ValueError, match="has no stochastic depth"):
        encoder_from(checkpoint, drop_path=0.1)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "convnext_atto"])
def test_stochastic_depth_reaches_the_last_layer_and_is_no_part_of_what_is_stored(name, tmp_path) -> None:
    sizes = {} if name == "convnext_atto" else {"patch_size": 8, "width": 32, "depth": 2, "heads": 2}
    backbone = create_backbone(name, 32, drop_path=0.2, **sizes)
    loaded, _ = encoder_from(read_checkpoint(mae.save(backbone, tmp_path)), drop_path=0.1)
    plain = mae.load_encoder(tmp_path)

    for made, wanted in ((backbone, 0.2), (loaded, 0.1), (plain, 0.0)):
        rates = [part.drop_prob for part in made.modules() if isinstance(part, DropPath)]
        assert max(rates, default=0.0) == pytest.approx(wanted)


def test_known_parts_are_stored_as_they_always_were() -> None:
    pixels = build(VIT, LIGHT, PIXELS)
    assert pixels.config.keys() == {"encoder", "decoder", "normalize_pixels"}
    assert pixels.config["decoder"] == {"name": "self_attention", "width": 16, "depth": 1, "heads": 2}
    assert pixels.config["normalize_pixels"] is True
    colours = build(VIT, Part("linear"), Part("masked_patch_prediction", None, {"target": "mean_colour"}))
    assert isinstance(colours, MaskedPatchPredictor)
    assert colours.config.keys() == {"encoder", "objective"}
    assert colours.config["objective"] == {"name": "masked_patch_prediction", "target": "mean_colour"}
    for model in (pixels, colours):
        assert rebuild_masked_model(model.config).state_dict().keys() == model.state_dict().keys()


def test_it_is_the_model_of_create_autoencoder() -> None:
    model = build(VIT, LIGHT, PIXELS)
    torch.manual_seed(0)
    ours = mae.create_autoencoder(**TINY)
    assert ours.config == model.config
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in ours.state_dict().items())


def test_parts_are_put_together_by_hand_too(tiny_autoencoder, random_plan) -> None:
    given = tiny_autoencoder()
    model = MaskedAutoencoder(given.encoder, given.decoder, Pixels(normalize=False))
    images, plan = torch.randn(2, 3, 16, 16), random_plan(2, (4, 4))
    assert torch.equal(model(images, plan).prediction, given(images, plan).prediction)
    assert not torch.equal(model(images, plan).loss, given(images, plan).loss)


def test_a_target_is_float32_under_autocast_whatever_it_is_made_of(random_plan) -> None:
    class Projected(Pixels):
        def target(self, hidden, scale):
            return hidden @ torch.eye(48)

    model = build(VIT, LIGHT, PIXELS)
    model.objective = Projected()
    images, plan = torch.randn(2, 3, 16, 16), random_plan(2, (4, 4))
    with torch.autocast("cpu", torch.bfloat16):
        target = model(images, plan).target
    assert target.dtype == torch.float32


@pytest.mark.parametrize(
    ("encoder", "decoder", "objective", "says"),
    [
        (VIT, Part("cross"), PIXELS, r"decoder\.name='cross' is unknown: choose one of self_attention"),
        (VIT, Part("self_attention", None, {"widht": 8}), PIXELS, r"decoder\.widht=8 .*did you mean decoder\.width\?"),
        (VIT, LIGHT, Part("pixel"), r"objective\.name='pixel' is unknown: did you mean pixels\?"),
        (VIT, LIGHT, Part("pixels", None, {"normalise": True}), r"did you mean objective\.normalize\?"),
        ({**VIT, "stem": "small"}, LIGHT, PIXELS, r"model\.stem=small means nothing to vit_tiny_patch16_224"),
        ({**VIT, "name": "resnet18"}, LIGHT, PIXELS, "ResNet, and no plain ViT"),
        ({**VIT, "name": "vt_resnet18"}, LIGHT, PIXELS, "is no PatchBackbone: hidden patches cannot be left out"),
        (
            OWN,
            LIGHT,
            Part("masked_patch_prediction"),
            "corrupts the patch embeddings of a timm ViT, and PatchMLP is none",
        ),
        (
            {**OWN, "_target_": "torch.nn.Linear"},
            LIGHT,
            PIXELS,
            r"model\._target_='torch\.nn\.Linear' is no class that derives",
        ),
        (
            {**OWN, "_target_": "torch.nn.Linea"},
            LIGHT,
            PIXELS,
            r"model\._target_='torch\.nn\.Linea' cannot be imported",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(encoder, decoder, objective, says) -> None:
    with pytest.raises(ValueError, match=says):
        create_masked_model(encoder, decoder, objective)


def test_an_objective_is_asked_whether_it_fits_the_depth_of_the_images() -> None:
    colours = Part("masked_patch_prediction", None, {"target": "mean_colour"})
    with pytest.raises(ValueError, match=r"counts colours of 8 bits, and data\.bits=16"):
        create_masked_model(VIT, Part("linear"), colours, bits=16)


def gradients_and_memory(checkpointing: bool, random_plan) -> tuple[dict[str, torch.Tensor], int, list[int]]:
    """Return gradients, the bytes that the decoder keeps for the way back, and how often each block of both ran."""
    torch.manual_seed(0)
    model = mae.create_autoencoder(**{**TINY, "decoder_depth": 3})
    if checkpointing:
        model.set_grad_checkpointing()
    runs, kept = [0] * 5, 0
    for number, block in enumerate([*model.encoder.vit.blocks, *model.decoder.blocks]):
        # Before and not behind a block: what is computed again stops as soon as nothing more is needed of it.
        block.register_forward_pre_hook(lambda *_, number=number: runs.__setitem__(number, runs[number] + 1))

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    images, plan = torch.randn(2, 3, 16, 16), random_plan(2, (4, 4))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.decoder(model.encoder(images, plan).detach().requires_grad_(), plan)
    runs[:] = [0] * 5
    model(images, plan).loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, kept, runs


def test_checkpointing_covers_encoder_and_decoder_and_changes_no_gradient(random_plan) -> None:
    plain, whole, once = gradients_and_memory(False, random_plan)
    thrifty, less, again = gradients_and_memory(True, random_plan)

    assert (once, again) == ([1] * 5, [2] * 5)
    assert less < whole / 4
    assert plain.keys() == thrifty.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(thrifty[name], gradient, atol=1e-6, rtol=1e-6)
