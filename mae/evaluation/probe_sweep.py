"""Many linear probes in one pass: features are extracted once, and the heads are trained side by side."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from mae.evaluation.classification_scores import share_right


@dataclass(frozen=True)
class Candidate:
    """A linear probe to be tried.

    Attributes:
        pool: Which of the extracted features it reads.
        batch_norm: Whether they are normalised first.
        base_lr: lr = base_lr * batch / 256.
    """

    pool: str
    batch_norm: bool
    base_lr: float

    def __str__(self) -> str:
        return f"protocol.pool={self.pool} protocol.batch_norm={str(self.batch_norm).lower()} optim.base_lr={self.base_lr:g}"


@dataclass
class Probe:
    """A candidate with its head and what became of it.

    Attributes:
        candidate: What it is.
        head: (B, D) to (B, K).
        optimizer: Over the head.
        schedule: Of the optimizer, by steps.
        curve: Validation accuracy by epoch.
        best: State of the head at the first epoch of the highest validation accuracy.
    """

    candidate: Candidate
    head: nn.Module
    optimizer: Optimizer
    schedule: LRScheduler
    curve: dict[int, float] = field(default_factory=dict)
    best: dict[str, Tensor] = field(default_factory=dict)

    @property
    def top1(self) -> float:
        """The highest validation accuracy."""
        return max(self.curve.values())


Pooled = tuple[Mapping[str, Tensor], Tensor]
"""Features (N, D) by pooling, and labels (N,)."""


def train_probes(
    probes: Sequence[Probe],
    train: Pooled,
    val: Pooled,
    *,
    epochs: int,
    batch_size: int,
    validate_every: int,
    order: Callable[[int], Tensor],
    after_epoch: Callable[[int], None] = lambda epoch: None,
) -> Probe:
    """Train every probe on the same batches, and return the best on validation, the first of equals.

    Each does step for step what it would do in a run of its own on the same images without augmentation.

    Args:
        probes: Heads in train mode; they are changed.
        train: What they learn from.
        val: What decides, also between the epochs of a probe.
        epochs: In all.
        batch_size: Images that do not fill a last batch wait for another epoch's order.
        validate_every: Epochs between validations; the last one is validated in any case.
        order: Indices of the training images in an epoch.
        after_epoch: Told the number of epochs done.
    """
    features, labels = train
    for epoch in range(epochs):
        indices = order(epoch)
        for batch in torch.split(indices[: len(indices) // batch_size * batch_size], batch_size):
            inputs = {pool: values[batch] for pool, values in features.items()}
            # The heads share no parameter, so the gradient of the sum is each one's own.
            losses = [F.cross_entropy(probe.head(inputs[probe.candidate.pool]), labels[batch]) for probe in probes]
            torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
            for probe in probes:
                probe.optimizer.step()
                probe.schedule.step()
                probe.optimizer.zero_grad()
        if (epoch + 1) % validate_every == 0 or epoch + 1 == epochs:
            for probe in probes:
                _validate(probe, epoch, val)
        after_epoch(epoch + 1)
    return max(probes, key=lambda probe: probe.top1)


@torch.no_grad()
def _validate(probe: Probe, epoch: int, val: Pooled) -> None:
    features, labels = val
    probe.head.eval()
    top1 = share_right(probe.head(features[probe.candidate.pool]).argmax(dim=1), labels)
    probe.head.train()
    if not probe.curve or top1 > probe.top1:
        probe.best = copy.deepcopy(probe.head.state_dict())
    probe.curve[epoch] = top1
