"""Predictions: in the order of the split, each once, from all processes."""

from __future__ import annotations

from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from mae.data.loading.batches import Batch
from mae.data.loading.order import OrderedSampler
from mae.models.backbones.encoder import Encoder
from mae.models.classifier import Classifier
from mae.models.heads import LinearHead
from mae.training.classifying import ClassificationModule
from mae.training.predictions import Predictions

N, K = 11, 3
LOGITS = torch.randn(N, K, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(N) * 7 % K


def collect(*shares: list[int], size: int = 4) -> Predictions:
    """Give one metric the images of the shares, in batches."""
    metric = Predictions()
    for share in shares:
        for batch in torch.tensor(share).split(size):
            metric.update(batch, LABELS[batch], LOGITS[batch])
    return metric


def assert_in_order(found: tuple[Tensor, Tensor]) -> None:
    assert torch.equal(found[0], LOGITS)
    assert torch.equal(found[1], LABELS)


def shares_of(world: int) -> list[list[int]]:
    return [[index for _, index in OrderedSampler(torch.arange(N).numpy(), rank, world)] for rank in range(world)]


@pytest.mark.parametrize("size", [1, 4, 100])
def test_the_order_of_the_split_is_restored(size: int) -> None:
    shuffled = torch.randperm(N).tolist()
    assert shuffled != list(range(N))
    assert_in_order(collect(shuffled, size=size).compute())


@pytest.mark.parametrize("world", [2, 3])
def test_shares_of_several_processes_merge_into_the_whole(world: int) -> None:
    first, *others = [collect(share) for share in shares_of(world)]
    for other in others:
        first.merge_state(other)
    assert_in_order(first.compute())


@pytest.mark.parametrize("rank", [0, 1])
def test_what_processes_gather_is_the_whole_on_each(rank: int) -> None:
    # Shares of 6 and 5 images: torchmetrics gathers the states one after the other, in the order that they were declared.
    metrics = [collect(share) for share in shares_of(2)]
    states = iter([torch.cat(getattr(metric, name)) for metric in metrics] for name in ("indices", "labels", "logits"))

    def gather(state: Tensor, group: Any = None) -> list[Tensor]:
        gathered = next(states)
        assert torch.equal(gathered[rank], state)
        return gathered

    own = metrics[rank]
    own.dist_sync_fn, own.distributed_available_fn = gather, lambda: True
    assert_in_order(own.compute())


@pytest.mark.parametrize(
    "shares",
    [
        [list(range(N)), [3]],
        [[0, 1, 2, 4, 5, 6, 7, 8, 9, 10]],
        [list(range(1, N))],
        # As many as there are images, but one twice and one never.
        [[0, 1, 2, 3, 4, 5, 5, 7, 8, 9, 10]],
    ],
    ids=["doubled", "missing", "the first missing", "doubled and missing"],
)
def test_an_image_that_counts_twice_or_never_is_an_error(shares: list[list[int]]) -> None:
    count = sum(len(share) for share in shares)
    with pytest.raises(RuntimeError, match=f"{count} predictions are not one for each image of the split"):
        collect(*shares).compute()


def test_a_processes_share_alone_is_not_taken_for_the_whole() -> None:
    with pytest.raises(RuntimeError, match="not one for each image"):
        collect(shares_of(2)[0]).compute()


def test_logits_are_kept_in_float32() -> None:
    metric = Predictions()
    metric.update(torch.arange(N), LABELS, LOGITS.bfloat16())
    logits, _ = metric.compute()
    assert logits.dtype == torch.float32
    assert torch.equal(logits, LOGITS.bfloat16().float())


def test_reset_forgets_what_was_collected() -> None:
    metric = collect(list(range(N)))
    metric.compute()
    metric.reset()
    metric.update(torch.tensor([1, 0]), LABELS[:2].flip(0), LOGITS[:2].flip(0))
    logits, labels = metric.compute()
    assert torch.equal(logits, LOGITS[:2])
    assert torch.equal(labels, LABELS[:2])


def test_a_test_of_the_module_scores_every_image_in_order_however_often_it_is_run() -> None:
    encoder = Encoder("vit_tiny_patch16_224", 16, 1, patch_size=4, width=32, depth=1, heads=2)
    encoder.set_pixel_statistics((0.5,), (0.25,))
    module = ClassificationModule(Classifier(encoder, LinearHead(32, K, init_std=0.5)), {}, ("a", "b", "c")).eval()
    images = torch.randint(256, (N, 1, 16, 16), dtype=torch.uint8)
    batches = [Batch(images[part], LABELS[part], part) for part in torch.randperm(N).split(4)]
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    for _ in range(2):
        trainer.test(module, DataLoader(batches, batch_size=None), verbose=False)  # type: ignore[arg-type]
        logits, labels = module.scored
        with torch.no_grad():
            expected = module.model((images / 255 - 0.5) / 0.25)
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
        assert torch.equal(labels, LABELS)
