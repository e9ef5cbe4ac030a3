"""protocol.sweep=true: many linear probes on features that are extracted once, instead of one run each."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import Logger
from torch import Tensor, nn

from mae.config.schema.protocols import LinearProbe
from mae.config.schema.roots import FinetuneConfig
from mae.data.loading.order import ShuffledSampler
from mae.evaluation.probe_sweep import Candidate, Pooled, Probe, train_probes
from mae.models.backbones.backbone import Backbone
from mae.models.classifier import pool_tokens
from mae.optim.schedule import scaled_lr
from mae.report.figures import lines_svg
from mae.report.page import Figure
from mae.training.callbacks.divergence import DivergedError
from mae.training.optimization import Optimization

FILE = "sweep.csv"


def candidates_of(config: FinetuneConfig, encoder: Backbone) -> list[Candidate]:
    """Return every pooling that the encoder has, with and without BatchNorm, at every learning rate.

    Raises:
        ValueError: There is no learning rate to try, or gradients are to be clipped.
    """
    assert isinstance(config.protocol, LinearProbe)
    factors = config.protocol.sweep_factors
    if not factors or min(factors) <= 0:
        raise ValueError(f"protocol.sweep_factors={factors} must be one or more positive numbers")
    if config.optim.clip_norm is not None:
        raise ValueError("protocol.sweep=true clips no gradients: leave optim.clip_norm out")
    pools = ["mean", "token"] if encoder.class_tokens else ["mean"]
    rates = [float(f"{config.optim.base_lr * factor:.4g}") for factor in factors]
    return [Candidate(*choice) for choice in itertools.product(pools, (True, False), rates)]


def protocol_of(candidate: Candidate, protocol: LinearProbe) -> LinearProbe:
    """Return the protocol with what a candidate chooses of it."""
    return protocol.model_copy(update={"pool": candidate.pool, "batch_norm": candidate.batch_norm})


@dataclass(frozen=True)
class Outcome:
    """What became of a candidate: its highest validation accuracy, first reached after ``best_epoch`` epochs."""

    candidate: Candidate
    top1: float
    best_epoch: int


@dataclass
class Sweep:
    """What to try, and what came of it.

    Attributes:
        candidates: In the order that decides between equals.
        optimization: Of every probe, but for the learning rate.
        outcomes: Of the candidates; empty before the sweep has run.
    """

    candidates: Sequence[Candidate]
    optimization: Optimization
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def winner(self) -> Candidate:
        """The best on validation, the first of equals."""
        assert self.outcomes, "the sweep has not run"
        return max(self.outcomes, key=lambda outcome: outcome.top1).candidate

    def features(self, encoder: Backbone) -> Callable[[Tensor], Tensor]:
        """Return what turns images (B, C, H, W) into features (B, poolings, D)."""

        def pooled(images: Tensor) -> Tensor:
            tokens = encoder(images)
            return torch.stack([pool_tokens(encoder, tokens, pool) for pool in self._pools], dim=1)

        return pooled

    def by_pooling(self, features: Tensor, labels: Tensor, device: torch.device) -> Pooled:
        """Return features (N, poolings, D) and labels (N,) as the probes take them."""
        split = {pool: features[:, i].contiguous().to(device) for i, pool in enumerate(self._pools)}
        return split, labels.to(device)

    def train(
        self,
        train: Pooled,
        val: Pooled,
        build_head: Callable[[Candidate], nn.Module],
        config: FinetuneConfig,
        after_epoch: Callable[[int], None],
    ) -> Probe:
        """Train all candidates side by side, and return the winner.

        Args:
            train: What they learn from, on their device.
            val: What decides.
            build_head: Returns the head of a candidate, on the device of the features.
            config: Of the run: epochs, batch size, seed.
            after_epoch: Told the number of epochs done.

        Raises:
            DivergedError: The weights of every probe are no numbers.
        """
        sampler = ShuffledSampler(len(train[1]), config.batch_size, config.seed)

        def order(epoch: int) -> Tensor:
            sampler.set_epoch(epoch)
            return torch.tensor([index for _, index in sampler], device=train[1].device)

        probes = [self._probe(candidate, build_head(candidate), config.batch_size) for candidate in self.candidates]
        winner = train_probes(
            probes,
            train,
            val,
            epochs=config.epochs,
            batch_size=config.batch_size,
            validate_every=config.trainer.validate_every,
            order=order,
            after_epoch=after_epoch,
        )
        if not all(bool(value.isfinite().all()) for value in winner.best.values()):
            raise DivergedError(
                "no probe of the sweep has weights that are numbers: lower optim.base_lr or protocol.sweep_factors"
            )
        self.outcomes = [
            Outcome(probe.candidate, probe.top1, 1 + next(e for e, top1 in probe.curve.items() if top1 == probe.top1))
            for probe in probes
        ]
        return winner

    def write(self, folder: Path) -> None:
        """Write sweep.csv."""
        with (folder / FILE).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["pool", "batch_norm", "base_lr", "val_top1", "best_epoch"])
            for outcome in self.outcomes:
                chosen = outcome.candidate
                writer.writerow([chosen.pool, chosen.batch_norm, chosen.base_lr, outcome.top1, outcome.best_epoch])

    def read(self, folder: Path) -> None:
        """Take the outcomes of an earlier part of the run from its sweep.csv."""
        with (folder / FILE).open(newline="", encoding="utf-8") as file:
            self.outcomes = [
                Outcome(
                    Candidate(row["pool"], row["batch_norm"] == "True", float(row["base_lr"])),
                    float(row["val_top1"]),
                    int(row["best_epoch"]),
                )
                for row in csv.DictReader(file)
            ]

    @property
    def results(self) -> dict[str, Any]:
        """Which candidate won, among how many."""
        chosen = self.winner
        return {
            "sweep_candidates": len(self.candidates),
            "sweep_pool": chosen.pool,
            "sweep_batch_norm": chosen.batch_norm,
            "sweep_base_lr": chosen.base_lr,
        }

    @property
    def figures(self) -> list[Figure]:
        """Validation accuracy over the learning rate, a line for each pooling and normalisation."""
        lines: dict[str, list[tuple[float, float, None]]] = {}
        for outcome in self.outcomes:
            chosen = outcome.candidate
            label = f"{chosen.pool}, {'BatchNorm' if chosen.batch_norm else 'as it is'}"
            lines.setdefault(label, []).append((chosen.base_lr, outcome.top1, None))
        return [("Linear probes side by side", lines_svg(lines, "base learning rate", "validation top-1"))]

    @property
    def _pools(self) -> list[str]:
        return list(dict.fromkeys(candidate.pool for candidate in self.candidates))

    def _probe(self, candidate: Candidate, head: nn.Module, batch_size: int) -> Probe:
        optimization = replace(self.optimization, lr=scaled_lr(candidate.base_lr, batch_size))
        parts = optimization.configure(head)
        return Probe(candidate, head, parts["optimizer"], parts["lr_scheduler"]["scheduler"])


def log_curve(probe: Probe, loggers: Sequence[Logger], steps_per_epoch: int) -> None:
    """Log the validation accuracy of a probe, as a run of its own would."""
    for epoch, top1 in probe.curve.items():
        step = (epoch + 1) * steps_per_epoch - 1  # as Lightning counts
        for logger in loggers:
            logger.log_metrics({"val_top1": top1, "epoch": epoch}, step)
