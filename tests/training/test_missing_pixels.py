"""Pixels that are not there are neither seen nor scored, whatever stands in their places."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from torch import Tensor

from mae.components.registry import Part
from mae.data.loading.batches import Batch
from mae.evaluation.reconstruct import reconstruct
from mae.evaluation.representation import patch_figures, unit_patches
from mae.masking.plan import MaskPlan, gather_patches
from mae.models.autoencoder import create_autoencoder
from mae.models.create_masked_model import create_masked_model
from mae.models.layers.patches import patch_shares, patchify
from mae.models.masked_model import MaskedModel
from mae.objectives.corrupted_patches import CorruptedPatches
from mae.objectives.objective import PixelScale
from mae.objectives.pixels import Pixels
from tests.runs import BARE, job

TINY = {"patch_size": 4, "width": 16, "depth": 1, "heads": 2}


def model(objective: Part) -> MaskedModel:
    torch.manual_seed(0)
    made = create_masked_model(
        {"name": "vit_tiny_patch16_224", "image_size": 16, "in_channels": 3, **TINY},
        Part("self_attention", None, {"width": 16, "depth": 1, "heads": 2}),
        objective,
    )
    made.encoder.set_pixel_statistics((0.5,) * 3, (0.25,) * 3)
    return made


def some() -> tuple[Tensor, Tensor, MaskPlan]:
    generator = torch.Generator().manual_seed(1)
    valid = torch.ones(3, 16, 16, dtype=torch.bool)
    valid[0, :9, :7] = False
    valid[1] = False
    plan = MaskPlan.from_noise(torch.rand(3, 16, generator=generator), (4, 4), 0.75)
    return torch.randn(3, 3, 16, 16, generator=generator), valid, plan


def test_missing_pixels_change_neither_loss_nor_gradient() -> None:
    images, valid, plan = some()
    found = []
    for junk in (0.0, 100.0, torch.nan):
        made = model(Part("pixels"))
        out = made(torch.where(valid.unsqueeze(1), images, junk), plan, valid)
        out.loss.backward()
        found.append([out.loss.detach(), *(p.grad for p in made.parameters() if p.grad is not None)])
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("normalize", [True, False])
def test_the_loss_is_that_of_a_loop_over_pixels_that_are_there(normalize: bool) -> None:
    images, valid, plan = some()
    images = images.double()
    made = model(Part("pixels", None, {"normalize": normalize})).double()
    out = made(images, plan, valid)
    losses = []
    for image in range(3):
        filled = torch.where(valid[image], images[image], 0.0)
        patches = patchify(filled.unsqueeze(0), 4)[0]
        there = patchify(valid[image].expand(1, 3, 16, 16), 4)[0]
        errors: list[Tensor] = []
        for place, patch in enumerate(plan.masked[image].tolist()):
            kept = patches[patch][there[patch]]
            if not len(kept):
                continue
            if normalize:
                spread = kept.var() if len(kept) > 1 else torch.zeros(())
                kept = (kept - kept.mean()) / (spread + 1e-6).sqrt()
            errors += list((out.prediction[image, place][there[patch]] - kept).square())
        losses.append(torch.stack(errors).mean() if errors else torch.zeros((), dtype=torch.float64))
    assert losses[1] == 0
    assert torch.allclose(out.loss, torch.stack(losses).mean(), atol=1e-12)


def test_where_all_pixels_are_there_the_loss_is_what_it_is_without_a_map() -> None:
    images, valid, plan = some()
    made = model(Part("pixels")).double()
    images = images.double()
    assert torch.allclose(made(images, plan, torch.ones_like(valid)).loss, made(images, plan).loss, atol=1e-12)


@pytest.mark.parametrize("target", ["mean_colour", "colours_4x4", "pixels"])
def test_colours_of_what_is_missing_are_not_asked_for(target: str) -> None:
    from mae.masking.corruption import CorruptionPlan

    images, valid, _ = some()
    plan = CorruptionPlan.draw(torch.rand(3, 3, 16, generator=torch.Generator().manual_seed(2)), (4, 4), 0.5)
    made = model(Part("masked_patch_prediction", None, {"target": target}))
    losses = [made(torch.where(valid.unsqueeze(1), images, junk), plan, valid).loss for junk in (0.0, 50.0)]
    assert torch.equal(*losses) and torch.isfinite(losses[0])


class Deaf(Pixels):
    def target(self, hidden: Tensor, scale: PixelScale) -> Tensor:  # type: ignore[override]
        return hidden


def test_an_objective_that_does_not_ask_what_is_there_says_so() -> None:
    images, valid, plan = some()
    made = model(Part(None, f"{__name__}.Deaf", {}))
    made(images, plan)
    with pytest.raises(
        ValueError, match=r"these images lack pixels .*does not ask which: give its target, loss and as_patches"
    ):
        made(images, plan, valid)


def test_shares_of_patches_are_counted() -> None:
    _, valid, _ = some()
    shares = patch_shares(valid, 4)
    assert shares[0].view(4, 4)[0, 0] == 0 and shares[0].view(4, 4)[2, 1] == 1 - 3 / 16
    assert shares[1].sum() == 0 and shares[2].min() == 1


def folder_of(folder: Path, junk: float) -> Path:
    """Write 40 training and 10 validation images (8, 8) of floats, a third of which lack pixels; ``junk`` stands there."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 40), ("val", 10)):
        values = rng.random((count, 8, 8)).astype(np.float32)
        values[::3, 2:6, :3] = np.nan
        values[1::9] = np.where(rng.random((len(values[1::9]), 8, 8)) < 0.9, np.nan, values[1::9])
        lacking = np.isnan(values)
        values[lacking] = junk
        (folder / split).mkdir(parents=True)
        for number, image in enumerate(values):
            tag = (42113, 2, 0, "nan" if np.isnan(junk) else str(junk), True)  # of GDAL
            tifffile.imwrite(folder / split / f"{number:02}.tif", image, extratags=[tag])
    return folder


@pytest.mark.parametrize("masking", ["random", "weighted"])
def test_a_run_over_images_with_holes_is_the_same_whatever_stands_in_them(masking: str, tmp_path: Path) -> None:
    given = (
        "model.patch_size=2",
        "data.image_size=8",
        "batch_size=10",
        "epochs=2",
        f"masking={masking}",
        "data.num_workers=0",
    )
    states = []
    for junk in (np.nan, -9999):
        root = folder_of(tmp_path / str(junk), junk)
        run = job("pretrain", tmp_path / f"run {junk}", "data=arrays", f"data.root={root}", *given, *BARE)
        results = run.run()
        assert np.isfinite(results["val_loss"])
        state = torch.load(tmp_path / f"run {junk}" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        states.append((results["val_loss"], state))
    assert states[0][0] == states[1][0]
    assert all(torch.equal(value, states[1][1][name]) for name, value in states[0][1].items())


def test_the_model_by_the_public_function_takes_a_map_too() -> None:
    images, valid, plan = some()
    made = create_autoencoder("vit_tiny_patch16_224", 16, decoder_width=16, decoder_depth=1, decoder_heads=2, **TINY)
    assert torch.isfinite(made(torch.where(valid.unsqueeze(1), images, torch.nan), plan, valid).loss)


def test_a_perfect_prediction_is_shown_as_what_is_there() -> None:
    images, valid, plan = some()
    made = model(Part("pixels"))
    images = torch.where(valid.unsqueeze(1), images, 0.0)
    there = made.hidden_valid(valid, plan)
    hidden = gather_patches(patchify(images, 4), plan.masked)
    shown = made.as_patches(made.target(images, plan, None, there), hidden, there)
    assert torch.allclose(shown[there], hidden[there], atol=1e-5)
    parts = reconstruct(made, images, plan, valid)
    assert all(torch.isfinite(part).all() for part in vars(parts).values())


def test_images_that_hide_nothing_do_not_better_the_validation_loss(tmp_path: Path) -> None:
    run = job("pretrain", tmp_path / "run", *BARE)
    module, size = run.module, run.module.model.encoder.image_size
    module.log = lambda *values, **options: None  # of a trainer
    images = torch.randint(0, 256, (4, 1, *size), dtype=torch.uint8)
    valid = torch.ones(4, *size, dtype=torch.bool)
    valid[2:] = False
    numbers = torch.arange(4)
    with torch.no_grad():
        module.eval().validation_step(Batch(images, numbers, numbers, (), valid), 0)
        found = module.val_loss.compute()
        module.val_loss.reset()
        module.validation_step(Batch(images[:2], numbers[:2], numbers[:2]), 0)
    assert torch.allclose(found, module.val_loss.compute(), atol=1e-5)


def test_where_no_patch_is_whole_nothing_is_said_of_patches() -> None:
    images, numbers = torch.rand(2, 3, 16, 16), torch.arange(2)
    valid = torch.ones(2, 16, 16, dtype=torch.bool)
    valid[:, ::4, ::4] = False
    batch = Batch(images, numbers, numbers, (), valid)
    zero, one = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
    assert patch_figures([batch], 4, zero, one) == {}
    colours = CorruptedPatches()
    assert colours.figures(unit_patches([batch], 4)) == {}
