"""The run of many linear probes side by side: features are extracted once, and the best head on validation is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.progress import Progress

from mae.config.schema.protocols import LinearProbe
from mae.data.source import Source
from mae.downstream.downstream_run import DownstreamRun
from mae.downstream.labelled_data import extract_split
from mae.downstream.sweep import Sweep, log_curve, protocol_of
from mae.downstream.tasks.classifiers import build_classifier
from mae.evaluation.probe_sweep import Candidate, Pooled, Probe
from mae.models.classifier import Classifier
from mae.report.page import Figure
from mae.training.classifying import ClassificationModule


@dataclass
class SweepRun(DownstreamRun):
    """A sweep over linear probes, ready to go.

    Attributes:
        module: The encoder with the head of the config; the winner once it has trained.
        sweep: What to try.
    """

    module: ClassificationModule
    sweep: Sweep

    def train(self) -> None:
        """Train all candidates, and keep the winner as ``last.ckpt``, ``best.ckpt`` and ``module``; a finished sweep is read.

        Raises:
            DivergedError: The weights of every probe are no numbers.
        """
        folder = self.setting.folder
        if folder.last_checkpoint is not None and (folder.path / "checkpoints" / "best.ckpt").is_file():
            self.sweep.read(folder.path)
            self.trainer.loggers = []
            self.module = self._module_of(self.sweep.winner)
            return
        folder.start(self.setting.config.plain())
        winner = self._train_probes(self.trainer.strategy.root_device)
        log_curve(winner, self.trainer.loggers, self.data.steps_per_epoch)
        self.sweep.write(folder.path)
        self.trainer.loggers = []  # the curve is written
        self.module = self._module_of(winner.candidate)
        self.module.model.head.load_state_dict(winner.best)
        # Attaches the module to the trainer, which saves no other.
        self.trainer.validate(self.module, datamodule=self.data, verbose=False)
        for name in ("last", "best"):
            self.trainer.save_checkpoint(folder.path / "checkpoints" / f"{name}.ckpt", weights_only=True)

    @property
    def training_results(self) -> Mapping[str, Any]:
        """Which candidate won, among how many."""
        return self.sweep.results

    @property
    def training_figures(self) -> Sequence[Figure]:
        """Validation accuracy over the learning rate."""
        return self.sweep.figures

    def _train_probes(self, device: torch.device) -> Probe:
        setting, config = self.setting, self.setting.config
        train, val = (self._features(source, device) for source in (self.data.splits.train, self.data.splits.val))
        with Progress(console=setting.console, disable=setting.quiet, transient=True) as bar:
            task = bar.add_task(f"{len(self.sweep.candidates)} probes", total=config.epochs)
            return self.sweep.train(
                train,
                val,
                lambda candidate: self._build(candidate).head.to(device),
                config,
                lambda epochs: bar.update(task, completed=epochs),
            )

    def _features(self, source: Source, device: torch.device) -> Pooled:
        """Extract features (N, D) by pooling, each image once, centre-cropped."""
        pooled = self.sweep.features(self.module.to(device).model.encoder)
        features, labels = extract_split(self.setting, self.data, self.trainer, source, pooled)
        return self.sweep.by_pooling(features, labels, device)

    @property
    def _protocol(self) -> LinearProbe:
        assert isinstance(self.setting.config.protocol, LinearProbe)
        return self.setting.config.protocol

    def _build(self, candidate: Candidate) -> Classifier:
        protocol, module = protocol_of(candidate, self._protocol), self.module
        return build_classifier(protocol, module.model.encoder, len(module.classes), self.setting.config.seed)

    def _module_of(self, candidate: Candidate) -> ClassificationModule:
        options = protocol_of(candidate, self._protocol).model_dump()
        return ClassificationModule(self._build(candidate), options, self.module.classes, seed=self.setting.config.seed)
