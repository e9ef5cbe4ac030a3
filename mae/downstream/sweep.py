"""protocol.sweep=true: many linear probes on features that are extracted once, instead of one run each."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from rich.progress import Progress
from torch import Tensor

from mae.data.loading.order import ShuffledSampler
from mae.downstream.labelled_data import build_classifier
from mae.evaluation.frozen.features import extract_features
from mae.evaluation.probe_sweep import Candidate, Pooled, Probe, train_probes
from mae.models.backbones.backbone import Backbone
from mae.models.classifier import Classifier, pool_tokens
from mae.optim.schedule import scaled_lr
from mae.report.figures import lines_svg
from mae.report.page import Figure
from mae.run.setting import Setting
from mae.training.classifying import FinetuningModule
from mae.training.optimization import Optimization

if TYPE_CHECKING:
    from mae.downstream.finetune import Finetuning


@dataclass
class Sweep:
    """What to try, and what came of it.

    Attributes:
        candidates: In the order that decides between equals.
        optimization: Of every probe, but for the learning rate.
        probes: Trained; empty before the sweep has run.
        winner: The best on validation.
    """

    candidates: Sequence[Candidate]
    optimization: Optimization
    probes: list[Probe] = field(default_factory=list)
    winner: Probe | None = None

    @classmethod
    def of(cls, setting: Setting, encoder: Backbone, optimization: Optimization) -> Sweep:
        """Return every pooling that the encoder has, with and without BatchNorm, at every learning rate.

        Raises:
            ValueError: There is no learning rate to try, or gradients are to be clipped.
        """
        factors = setting.config.protocol.sweep_factors
        if not factors or min(factors) <= 0:
            raise ValueError(f"protocol.sweep_factors={factors} must be one or more positive numbers")
        if setting.config.optim.clip_norm is not None:
            raise ValueError("protocol.sweep=true clips no gradients: leave optim.clip_norm out")
        pools = ["mean", "token"] if encoder.has_class_token else ["mean"]
        rates = [float(f"{setting.config['optim']['base_lr'] * factor:.4g}") for factor in factors]
        candidates = [Candidate(*choice) for choice in itertools.product(pools, (True, False), rates)]
        return cls(candidates, optimization)

    def run(self, job: Finetuning) -> FinetuningModule:
        """Train all candidates, keep the winner as ``last.ckpt`` and ``best.ckpt``, and return it as a module."""
        setting, config = job.setting, job.setting.config
        setting.folder.start(config)
        device = job.trainer.strategy.root_device
        encoder = job.module.model.encoder.to(device)
        train, val = (
            self._features(job, source, encoder, device) for source in (job.data.splits.train, job.data.splits.val)
        )
        self.probes = [self._probe(job, candidate) for candidate in self.candidates]
        sampler = ShuffledSampler(len(train[1]), config.batch_size, config.seed)

        def order(epoch: int) -> Tensor:
            sampler.set_epoch(epoch)
            return torch.tensor([index for _, index in sampler], device=device)

        with Progress(console=setting.console, disable=setting.quiet, transient=True) as bar:
            task = bar.add_task(f"{len(self.probes)} probes", total=config.epochs)
            self.winner = train_probes(
                self.probes,
                train,
                val,
                epochs=config.epochs,
                batch_size=config.batch_size,
                validate_every=config.trainer.validate_every,
                order=order,
                after_epoch=lambda epochs: bar.update(task, completed=epochs),
            )
        self._write(job)
        return self._keep(job)

    @property
    def results(self) -> dict[str, Any]:
        """Which candidate won, among how many."""
        assert self.winner is not None, "the sweep has not run"
        chosen = self.winner.candidate
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
        for probe in self.probes:
            chosen = probe.candidate
            label = f"{chosen.pool}, {'BatchNorm' if chosen.batch_norm else 'as it is'}"
            lines.setdefault(label, []).append((chosen.base_lr, probe.top1, None))
        return [("Linear probes side by side", lines_svg(lines, "base learning rate", "validation top-1"))]

    def _features(self, job: Finetuning, source: Any, encoder: Backbone, device: torch.device) -> Pooled:
        """Extract features (N, D) by pooling, each image once, centre-cropped."""
        pools = list(dict.fromkeys(candidate.pool for candidate in self.candidates))
        module = job.module.to(device)

        def pooled(images: Tensor) -> Tensor:
            tokens = encoder(images)
            return torch.stack([pool_tokens(tokens, encoder.num_prefix_tokens, pool) for pool in pools], dim=1)

        with job.trainer.precision_plugin.forward_context():
            features, labels = extract_features(job.data.evaluation_loader(source), pooled, module.mean, module.std)
        return {pool: features[:, i].contiguous().to(device) for i, pool in enumerate(pools)}, labels.to(device)

    def _probe(self, job: Finetuning, candidate: Candidate) -> Probe:
        config = job.setting.config
        head = self._classifier(job, candidate)[0].head.to(job.trainer.strategy.root_device)
        optimization = replace(self.optimization, lr=scaled_lr(candidate.base_lr, config.batch_size))
        parts = optimization.configure(head)
        return Probe(candidate, head, parts["optimizer"], parts["lr_scheduler"]["scheduler"])

    def _classifier(self, job: Finetuning, candidate: Candidate) -> tuple[Classifier, dict[str, Any]]:
        config = job.setting.config
        protocol = {**config.protocol, "pool": candidate.pool, "batch_norm": candidate.batch_norm}
        return build_classifier(config, protocol, job.module.model.encoder, len(job.module.classes)), protocol

    def _keep(self, job: Finetuning) -> FinetuningModule:
        assert self.winner is not None
        model, protocol = self._classifier(job, self.winner.candidate)
        model.head.load_state_dict(self.winner.best)
        module = FinetuningModule(model, protocol, job.module.classes, seed=job.setting.config.seed)
        job.trainer.loggers = []  # the curve is written
        # Attaches the module to the trainer, which saves no other.
        job.trainer.validate(module, datamodule=job.data, verbose=False)
        for name in ("last", "best"):
            job.trainer.save_checkpoint(job.setting.folder.path / "checkpoints" / f"{name}.ckpt", weights_only=True)
        return module

    def _write(self, job: Finetuning) -> None:
        if not job.trainer.is_global_zero:
            return
        assert self.winner is not None
        for epoch, top1 in self.winner.curve.items():
            step = (epoch + 1) * job.data.steps_per_epoch - 1  # as Lightning counts
            for logger in job.trainer.loggers:
                logger.log_metrics({"val_top1": top1, "epoch": epoch}, step)
        with (job.setting.folder.path / "sweep.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["pool", "batch_norm", "base_lr", "val_top1", "best_epoch"])
            for probe in self.probes:
                chosen = probe.candidate
                best = next(epoch for epoch, top1 in probe.curve.items() if top1 == probe.top1)
                writer.writerow([chosen.pool, chosen.batch_norm, chosen.base_lr, probe.top1, best + 1])
