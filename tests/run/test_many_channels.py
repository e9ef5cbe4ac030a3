"""Images of any number of channels, depth and shape, from the first stage to the report of the second."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import mae
from mae.config.choices import Choices, Machine
from mae.config.choosing.finetuning import choose_finetuning
from mae.config.composing import compose
from mae.data.loading.batches import Batch
from mae.data.statistics import false_colours, measure_pixels, pixel_tensors, shown_channels, standardize
from mae.downstream.baselines import classify_pixels
from mae.evaluation.alarm_rules import TOO_SHORT
from mae.evaluation.representation import patch_figures
from mae.report.pictures import CELL, GAP, MARGIN
from mae.training.loggers import read_metrics
from tests.runs import DECODER, ENCODER, job

MODEL = ("model.patch_size=4", *ENCODER, *DECODER)
QUICK = (
    "epochs=8",
    "optim.base_lr=0.03",
    "trainer.validate_every=2",
    "callbacks.picture_times=1",
    "callbacks.knn_times=1",
)


def waves(count: int, channels: int, height: int, width: int) -> np.ndarray:
    """Draw slow waves (N, H, W, C) in (0, 1), so much alike that a few dozen steps teach them; a channel differs in phase."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:height, 0:width, 0:1][:2]
    phase = np.arange(channels) / channels
    strength, start = rng.uniform((0.5, 0), (1, 0.1), (count, 2)).T.reshape(2, count, 1, 1, 1)
    wave = np.sin(2 * np.pi * (x / width + start + phase)) * np.cos(0.75 * np.pi * y / height)
    return np.asarray(0.5 + 0.45 * strength * wave)


def pretrained(folder: Path, *overrides: str) -> dict[str, Any]:
    return dict(job("pretrain", folder / "run", "data=arrays", *MODEL, *QUICK, *overrides).run())


def assert_learned(folder: Path, results: dict[str, Any]) -> None:
    """The loss on hidden patches is below that of the first epoch, and below that of predicting each patch's mean."""
    losses = [value for _, value in read_metrics(folder / "run" / "metrics.csv")["val_loss"]]
    assert losses[-1] < 0.9 * losses[0]
    assert results["val_loss"] < 0.9 * results["patch_mean_loss"]
    assert [text for text in results["alarms"] if not text.startswith(TOO_SHORT)] == []


def shades(path: Path, height: int, width: int) -> np.ndarray:
    """The pixels of the originals in a picture of reconstructions, (H, W, 3)."""
    factor = max(1, round(CELL / max(height, width)))
    with Image.open(path) as image:
        return np.asarray(image)[GAP : GAP + height * factor, MARGIN + GAP : MARGIN + GAP + width * factor]


def test_41_channels_of_bytes_need_no_setting_but_the_data(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", (255 * waves(160, 41, 16, 16)).astype(np.uint8))
    results = pretrained(tmp_path, f"data.root={tmp_path / 'images.npy'}")
    assert_learned(tmp_path, results)
    encoder = mae.load_encoder(tmp_path / "run" / "encoder")
    assert encoder.in_channels == len(encoder.pixel_mean) == 41
    assert "channels 1, 21 and 41 of 41 as red, green and blue" in (tmp_path / "run" / "report.html").read_text()
    # A third of the channels apart, the waves are of other phases, so that a picture of them has colours.
    shown = shades(tmp_path / "run" / "pictures" / "reconstructions.png", 16, 16).astype(int)
    assert np.abs(shown[..., 0] - shown[..., 1]).max() > 100


def test_16_bit_grey_of_few_levels_is_learned_and_seen(tmp_path: Path) -> None:
    # Twelve bits of sixteen, as cameras have: shown as they are, they would be nearly black.
    np.save(tmp_path / "images.npy", (4095 * waves(160, 1, 16, 16)[..., 0]).astype(np.uint16))
    prepared = job("pretrain", tmp_path / "run", "data=arrays", *MODEL, *QUICK, f"data.root={tmp_path / 'images.npy'}")
    assert prepared.data.bits == 16
    batch = next(iter(prepared.data.val_dataloader()))
    assert batch.images.dtype == torch.float32
    assert len(batch.images.unique()) > 256
    results = dict(prepared.run())
    assert_learned(tmp_path, results)
    assert results["flat_patches"] < 0.1
    shown = shades(tmp_path / "run" / "pictures" / "reconstructions.png", 16, 16)
    assert int(shown.max()) - int(shown.min()) > 100
    assert "The grey is stretched" in (tmp_path / "run" / "report.html").read_text()


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give labelled rectangles of four channels in units of their own, and a run on them; classes differ in one channel."""
    folder = tmp_path_factory.mktemp("rectangles")
    images, labels = waves(220, 4, 32, 64), np.arange(220) % 2
    images[..., 2] += 0.6 * labels[:, None, None]
    images = (images * [1, 1e4, 1, 1e-3] - [0, 273, 0, 0]).astype(np.float32)
    for name, part in (("train", slice(0, 140)), ("val", slice(140, 180)), ("test", slice(180, 220))):
        np.save(folder / f"{name}.npy", images[part])
        np.save(folder / f"{name}_labels.npy", labels[part])
    pretrained(folder, f"data.root={folder}", "data.image_size=[32,64]", "model.patch_size=8")
    return folder


def test_rectangles_of_floats_in_any_unit_are_learned(labelled: Path) -> None:
    results = read_metrics(labelled / "run" / "metrics.csv")
    losses = [value for _, value in results["val_loss"]]
    assert losses[-1] < 0.9 * losses[0]
    assert results["probe_top1"][-1][1] > 0.8
    assert {"knn_top1", "rankme"} <= set(results)
    model = mae.load_autoencoder(labelled / "run")
    assert model.grid == (4, 8)
    # Each channel in its own unit: the smallest is not lost beside the largest.
    pixels = np.load(labelled / "train.npy").astype(np.float64)
    assert model.encoder.pixel_mean == pytest.approx(pixels.mean(axis=(0, 1, 2)), rel=1e-3)
    assert model.encoder.pixel_std == pytest.approx(pixels.std(axis=(0, 1, 2)), rel=1e-3)
    with Image.open(labelled / "run" / "pictures" / "reconstructions.png") as image:
        assert image.size == (MARGIN + 8 * (128 + GAP) + GAP, 4 * (64 + GAP) + GAP)


@pytest.mark.parametrize(("protocol", "epochs"), [("linear_probe", 20), ("finetune", 4)])
def test_the_second_stage_takes_shape_channels_and_units_from_the_checkpoint(
    labelled: Path, tmp_path: Path, protocol: str, epochs: int
) -> None:
    overrides = ("data=arrays", f"data.root={labelled}", f"checkpoint={labelled / 'run'}", f"protocol={protocol}")
    prepared = job("finetune", tmp_path / "run", *overrides, f"epochs={epochs}")
    assert prepared.data.channels == 4
    assert prepared.module.model.encoder.grid == (4, 8)
    results = prepared.run()
    assert results["test_top1"] > 0.8
    assert (
        classify_pixels(prepared.data, prepared.module.mean, prepared.module.std, prepared.module.classes)[
            "pixels_top1"
        ]
        > 0.8
    )
    assert f"{results['test_top1']:.1%}" in (tmp_path / "run" / "report.html").read_text()


def test_randaugment_is_refused_where_it_knows_no_such_images(labelled: Path, tmp_path: Path) -> None:
    overrides = ("data=arrays", f"data.root={labelled}", f"checkpoint={labelled / 'run'}", "protocol=finetune")
    with pytest.raises(
        ValueError, match=r"protocol\.rand_augment=9 works on grey and colour images of 8 bits.* 4 channels"
    ):
        job("finetune", tmp_path / "run", *overrides, "protocol.rand_augment=9")


@pytest.mark.parametrize(("channels", "bits", "magnitude"), [(3, 8, 9), (1, 8, 9), (4, 8, 0), (3, 16, 0)])
def test_randaugment_is_chosen_only_for_images_that_it_knows(channels: int, bits: int, magnitude: int) -> None:
    choices = Choices(compose("finetune", ["protocol=finetune", "checkpoint=null"]))
    choices.fill("data.channels", channels, "for the test")
    choices.fill("data.bits", bits, "for the test")
    choose_finetuning(choices, 50_000, Machine(accelerated=True, cores=8))
    assert choices.get("protocol.rand_augment") == magnitude
    assert choices.get("protocol.mixup") == 0.8


def test_a_checkpoint_of_other_channels_is_refused_before_work_starts(labelled: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "train.npy", np.zeros((8, 32, 64, 5), np.uint8))
    np.save(tmp_path / "train_labels.npy", np.arange(8) % 2)
    with pytest.raises(ValueError, match=r"data\.channels=4, .* does not fit images of 5 channels"):
        job("finetune", None, "data=arrays", f"data.root={tmp_path}", f"checkpoint={labelled / 'run'}")
    with pytest.raises(ValueError, match=r"data\.channels=3, .* does not fit images of 5 channels"):
        job("pretrain", None, "data=arrays", f"data.root={tmp_path}", "data.channels=3")


@pytest.mark.parametrize(
    ("channels", "bits", "shown"),
    [
        (1, 8, None),
        (3, 8, None),
        (1, 16, (0,)),
        (3, 16, (0, 1, 2)),
        (2, 8, (0, 1, 1)),
        (4, 8, (0, 2, 3)),
        (41, 8, (0, 20, 40)),
    ],
)
def test_false_colours_are_of_channels_evenly_spread(channels: int, bits: int, shown: tuple[int, ...] | None) -> None:
    assert shown_channels(channels, bits) == shown


def test_false_colours_stretch_each_channel_over_five_deviations() -> None:
    values = torch.tensor([-1e3, 950.0, 1000, 1050, 1125, 1e4]).view(1, 1, 2, 3)
    mean, std = torch.tensor([1000.0]).view(1, 1, 1), torch.tensor([50.0]).view(1, 1, 1)
    seen = false_colours(standardize(values, mean, std), (0,))
    assert seen.flatten().tolist() == pytest.approx([0, 0.3, 0.5, 0.7, 1, 1], abs=1e-6)


def test_floats_of_other_units_keep_their_own_deviations_and_flat_ones_divide_by_no_zero() -> None:
    draw = np.random.default_rng(0).normal(size=(4, 50, 50)) * [[[1e4]], [[1.0]], [[1e-4]], [[0]]]
    mean, std = measure_pixels([torch.from_numpy(draw + np.array([5, 0, 0, 7]).reshape(4, 1, 1)).float()])
    assert std[:3] == pytest.approx(draw.std(axis=(1, 2))[:3], rel=1e-3)
    assert 0 < std[3] < math.inf
    assert mean[3] == 7


def test_patches_are_flat_by_the_same_measure_in_bytes_and_in_floats_of_any_unit() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 2, 8, 8), dtype=torch.uint8, generator=generator)
    images[:, :, :, :4] = 77
    labels = torch.zeros(4).long()
    shares = []
    for part in (images, images.float() / 255, images.float() * 1e-6 - 1e-4):
        mean, std = pixel_tensors(*measure_pixels(part))
        shares.append(patch_figures([Batch(part, labels, labels)], 4, mean, std)["flat_patches"])
    assert shares == [0.5, 0.5, 0.5]
