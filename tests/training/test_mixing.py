"""Mixup, CutMix, erasing and the loss against their definitions, and where their chance comes from."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from mae.data.loading.batches import Batch
from mae.models.backbones.encoder import Encoder
from mae.models.classifier import Classifier
from mae.models.heads import LinearHead
from mae.training.classifying import ClassificationModule
from mae.training.mixing import BatchAugmentation
from mae.training.optimization import Optimization

K = 4
LABELS = torch.tensor([0, 1, 2, 3, 0, 2])


def seed_all(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002


def smoothed(labels: Tensor, smoothing: float) -> Tensor:
    """One-hot rows, of which a share is spread evenly over all classes."""
    return torch.stack([(1 - smoothing) * torch.eye(K)[label] + smoothing / K for label in labels])


def draws(augmentation: BatchAugmentation, images: Tensor, count: int = 40) -> list[tuple[Tensor, Tensor]]:
    results = []
    for seed in range(count):
        seed_all(seed)
        results.append(augmentation(images.clone(), LABELS))
    return results


def blend(mixed: Tensor, images: Tensor) -> float:
    """The share of the first image, by least squares."""
    apart = images - images.flip(0)
    return float(((mixed - images.flip(0)) * apart).sum() / (apart * apart).sum())


def is_blend(mixed: Tensor, images: Tensor) -> bool:
    share = blend(mixed, images)
    return torch.allclose(mixed, share * images + (1 - share) * images.flip(0), atol=1e-4)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_mixup_blends_images_and_targets_by_the_same_share(smoothing: float) -> None:
    images, shares = torch.randn(6, 3, 16, 16), []
    for mixed, targets in draws(BatchAugmentation(K, mixup=0.8, label_smoothing=smoothing), images):
        share = blend(mixed, images)
        torch.testing.assert_close(mixed, share * images + (1 - share) * images.flip(0), atol=1e-4, rtol=1e-4)
        hot = smoothed(LABELS, smoothing)
        torch.testing.assert_close(targets, share * hot + (1 - share) * hot.flip(0), atol=1e-4, rtol=1e-4)
        shares.append(share)
    assert min(shares) >= 0
    assert max(shares) <= 1
    assert np.std(shares) > 0.1


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_alpha_says_how_even_the_shares_are(kind: str) -> None:
    # Beta(a, a) draws halves at a large alpha, and all or nothing at a small one.
    images, untouched = torch.randn(6, 3, 16, 16), []
    for alpha in (200.0, 0.8, 0.01):
        results = draws(BatchAugmentation(K, **{kind: alpha}), images, 100)
        # The first image is of class 0 and its partner of class 2.
        untouched.append(sum(float(targets[0, 0]) > 0.99 for _, targets in results))
    assert untouched[0] == 0
    assert untouched[1] < 15
    assert 35 < untouched[2] < 65


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cutmix_pastes_a_rectangle_and_counts_its_pixels(smoothing: float) -> None:
    images, shares = torch.randn(6, 3, 16, 16), []
    for mixed, targets in draws(BatchAugmentation(K, cutmix=1.0, label_smoothing=smoothing), images):
        own, other = ((mixed == source).all(dim=1) for source in (images, images.flip(0)))
        assert torch.equal(own, ~other), "every pixel comes from one of the two"
        assert all(torch.equal(pasted, other[0]) for pasted in other)
        assert is_rectangle(other[0])
        share = own[0].sum().item() / 256
        hot = smoothed(LABELS, smoothing)
        torch.testing.assert_close(targets, share * hot + (1 - share) * hot.flip(0))
        shares.append(share)
    assert len(set(shares)) > 10


def is_rectangle(mask: Tensor) -> bool:
    rows, columns = (mask.any(dim=axis).nonzero() for axis in (1, 0))
    if not len(rows):
        return True
    sides = [int(values.max() - values.min()) + 1 for values in (rows, columns)]
    return int(mask.sum()) == sides[0] * sides[1]


def test_with_both_a_coin_decides() -> None:
    images = torch.randn(6, 3, 16, 16)
    blended = [is_blend(mixed, images) for mixed, _ in draws(BatchAugmentation(K, mixup=0.8, cutmix=1.0), images, 100)]
    # A blend of 0 or 1 is a paste too, but hardly comes.
    assert 30 < sum(blended) < 70


def test_erasing_replaces_one_rectangle_by_noise_and_leaves_the_labels() -> None:
    images, noise = torch.full((6, 3, 16, 16), 7.0), []
    for erased, targets in draws(BatchAugmentation(K, erasing=1.0), images):
        assert torch.equal(targets, LABELS)
        for image in erased:
            changed = (image != 7).all(dim=0)
            assert torch.equal(changed, (image != 7).any(dim=0)), "all channels, or none"
            assert is_rectangle(changed)
            assert 0.01 < changed.float().mean() < 0.4
            noise.append(image[:, changed].flatten())
    values = torch.cat(noise)
    assert values.mean().item() == pytest.approx(0, abs=0.05)
    assert values.std().item() == pytest.approx(1, abs=0.05)
    # Each pixel has noise of its own.
    assert len(values.unique()) > 0.99 * len(values)


@pytest.mark.parametrize("probability", [0.0, 0.25])
def test_erasing_meets_the_share_of_images_asked_for(probability: float) -> None:
    images = torch.full((6, 3, 16, 16), 7.0)
    erased = torch.cat([result for result, _ in draws(BatchAugmentation(K, erasing=probability), images, 100)])
    share = (erased != 7).flatten(1).any(dim=1).float().mean().item()
    assert share == pytest.approx(probability, abs=0.05 if probability else 0)


def test_without_options_images_and_labels_pass_unchanged() -> None:
    images = torch.randn(6, 3, 16, 16)
    for result, targets in draws(BatchAugmentation(K, label_smoothing=0.1), images, 3):
        assert torch.equal(result, images)
        assert torch.equal(targets, LABELS)


def cross_entropy_by_hand(logits: Tensor, shares: Tensor) -> float:
    total = 0.0
    for row, wanted in zip(logits.tolist(), shares.tolist(), strict=True):
        log_sum = math.log(sum(math.exp(value) for value in row))
        total -= sum(share * (value - log_sum) for share, value in zip(wanted, row, strict=True))
    return total / len(logits)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_classes_smooths_them(smoothing: float) -> None:
    logits = 3 * torch.randn(6, K)
    loss = BatchAugmentation(K, label_smoothing=smoothing).loss(logits, LABELS)
    assert loss.item() == pytest.approx(cross_entropy_by_hand(logits, smoothed(LABELS, smoothing)), rel=1e-5)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_the_loss_of_mixed_targets_does_not_smooth_them_again(kind: str) -> None:
    logits, images = 3 * torch.randn(6, K), torch.randn(6, 3, 16, 16)
    augmentation = BatchAugmentation(K, **{kind: 1.0}, label_smoothing=0.1)
    for _, targets in draws(augmentation, images, 5):
        torch.testing.assert_close(targets.sum(dim=1), torch.ones(6))
        loss = augmentation.loss(logits, targets)
        assert loss.item() == pytest.approx(cross_entropy_by_hand(logits, targets), rel=1e-5)


@pytest.mark.parametrize("mixed", [False, True])
def test_the_loss_is_computed_in_float32_whatever_the_logits(mixed: bool) -> None:
    logits = (3 * torch.randn(6, K)).bfloat16().requires_grad_()
    targets = smoothed(LABELS, 0.3) if mixed else LABELS
    loss = BatchAugmentation(K).loss(logits, targets)
    assert loss.dtype == torch.float32
    expected = cross_entropy_by_hand(logits.detach().float(), targets if mixed else smoothed(LABELS, 0))
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert BatchAugmentation(K).loss(logits, targets).item() == loss.item()


class Disturb(L.Callback):
    """Draws from all global generators before each batch, as if other things had happened."""

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, number: int) -> None:
        seed_all(1000 + number)


Seen = dict[tuple[int, int], Tensor]


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Seen, list[Tensor]]]:
    """Train two epochs of three equal batches; give what the model saw in each, and its weights at the end."""

    def train(*callbacks: L.Callback, seed: int = 0, rank: int = 0) -> tuple[Seen, list[Tensor]]:
        monkeypatch.setattr(ClassificationModule, "global_rank", rank)
        torch.manual_seed(0)
        images = torch.randint(256, (6, 1, 16, 16), dtype=torch.uint8)
        encoder = Encoder("vit_tiny_patch16_224", 16, 1, patch_size=4, width=32, depth=2, heads=2, drop_path=0.5)
        encoder.set_pixel_statistics((0.5,), (0.25,))
        options: dict[str, Any] = {"weight_decay": 0.0, "betas": (0.9, 0.999), "momentum": 0.9, "layer_decay": 1.0}
        module = ClassificationModule(
            Classifier(encoder, LinearHead(32, K, init_std=0.02)),
            {"name": "finetune"},
            ("a", "b", "c", "d"),
            optimization=Optimization("adamw", 1e-3, **options, depth=2, warmup_steps=0, total_steps=6),
            augmentation=BatchAugmentation(K, mixup=0.8, cutmix=1.0, erasing=0.5, label_smoothing=0.1),
            seed=seed,
        )
        seen: Seen = {}

        def keep(_: Any, given: tuple[Tensor]) -> None:
            seen[module.current_epoch, len(seen) % 3] = given[0].clone()

        module.model.register_forward_pre_hook(keep)
        trainer = L.Trainer(
            accelerator="cpu",
            max_epochs=2,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=list(callbacks),
        )
        batches = [Batch(images, LABELS, torch.arange(6))] * 3
        trainer.fit(module, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
        return seen, [parameter.detach().clone() for parameter in module.model.parameters()]

    return train


def test_a_batch_is_augmented_alike_whatever_happened_before(watch: Callable[..., tuple[Seen, list[Tensor]]]) -> None:
    (first, weights), (disturbed, other_weights) = watch(), watch(Disturb())

    assert list(first) == [(epoch, batch) for epoch in range(2) for batch in range(3)]
    assert all(torch.equal(first[key], disturbed[key]) for key in first)
    # Drop path draws too.
    assert all(torch.equal(a, b) for a, b in zip(weights, other_weights, strict=True))


def test_each_seed_rank_epoch_and_batch_has_draws_of_its_own(watch: Callable[..., tuple[Seen, list[Tensor]]]) -> None:
    seen = [*watch()[0].values(), *watch(seed=1)[0].values(), *watch(rank=1)[0].values()]
    assert len(seen) == 18
    assert len({tuple(images.flatten().tolist()) for images in seen}) == 18
