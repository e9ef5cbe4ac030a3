"""Measures of the frozen features, beside the training steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning as L
from lightning.pytorch.utilities.seed import isolate_rng

from mae.evaluation.frozen.features import frozen
from mae.evaluation.frozen.knn_probe import KnnProbe
from mae.evaluation.representation import feature_std, patch_figures, rankme, unit_patches
from mae.models.backbones.backbone import Backbone
from mae.training.callbacks.moments import due
from mae.training.callbacks.online_probe import OnlineProbe
from mae.training.pretraining import PretrainingModule

PATCH_IMAGES = 256
"""Validation images whose patches are looked at: tens of thousands of patches at any size."""


class Measurements(L.Callback):
    """Measures frozen features before training and as it goes on, on validation images that are encoded once for all measures.

    Logs ``knn_top1`` and ``probe_top1``, where the data have labels, and ``rankme`` and ``feature_std`` in any case. Every rank
    does the same, so that none waits for another.

    Args:
        protocol: What is measured on, and how kNN is.
        times: How often in a run.
        knn: Whether kNN is measured.
        rank: Whether RankMe and the spread are measured.
        probe: The online probe, if there is one.
        untrained: Builds the encoder as it was before training, for a run that goes on and did not measure it then.
    """

    def __init__(
        self,
        protocol: KnnProbe,
        times: int,
        *,
        knn: bool,
        rank: bool,
        probe: OnlineProbe | None,
        untrained: Callable[[], Backbone],
    ) -> None:
        self.protocol = protocol
        self.times = times
        self.knn = knn
        self.rank = rank
        self.probe = probe
        self.untrained = untrained
        self.patches: dict[str, float] = {}
        self.before: dict[str, float] = {}
        self.latest: dict[str, float] = {}
        self.possible_rank = 0
        self.step = -1

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure the encoder while its weights are random still, and the patches."""
        assert isinstance(pl_module, PretrainingModule)
        self._measure_patches(pl_module)
        if trainer.global_step == 0:
            self._measure_before(pl_module, pl_module.model.encoder)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure, where it is time."""
        if not due(trainer, self.times):
            return
        assert isinstance(pl_module, PretrainingModule)
        self.latest = self._measure(pl_module, pl_module.model.encoder, self.probe)
        self.step = trainer.global_step
        pl_module.log_dict(self.latest, sync_dist=True)

    def results(self, trainer: L.Trainer, module: PretrainingModule) -> dict[str, float]:
        """Return all figures of the trained encoder beside those of the same one before training."""
        self._measure_patches(module)
        if self.step != trainer.global_step:
            self.latest = self._measure(module, module.model.encoder, self.probe)
        if self.latest.keys() - {"probe_top1"} - self.before.keys():
            self._measure_before(module, self.untrained().to(module.device))
        before = {f"{key}_random": value for key, value in self.before.items() if key in self.latest}
        return {**self.latest, **before, **self.patches}

    def state_dict(self) -> dict[str, Any]:
        """Return what can only be measured at the start of a run."""
        return {"before": self.before, "patches": self.patches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what was measured at the start of the run."""
        self.before, self.patches = state_dict["before"], state_dict["patches"]

    def _measure_before(self, module: PretrainingModule, encoder: Backbone) -> None:
        self.before = self._measure(module, encoder, None)

    def _measure_patches(self, module: PretrainingModule) -> None:
        if not self.patches:
            data = self.protocol.data
            with isolate_rng(include_cuda=False):
                batches = data.evaluation_loader(data.splits.val, most=PATCH_IMAGES)
                model = module.model
                self.patches = patch_figures(batches, model.patch_size, module.mean, module.std)
                self.patches |= model.objective.figures(unit_patches(batches, model.patch_size))

    def _measure(self, module: PretrainingModule, encoder: Backbone, probe: OnlineProbe | None) -> dict[str, float]:
        """Return the figures of an encoder; none where its features are not numbers, or where nothing is to be measured."""
        if not (self.knn or self.rank or probe):
            return {}
        features = frozen(encoder, self.protocol.pool)
        figures = {}
        with isolate_rng(include_cuda=False):  # a loader draws the seed of its workers
            seen, labels = self.protocol.validation(features, module.mean, module.std)
            if not seen.isfinite().all():
                return {}
            if self.knn:
                figures["knn_top1"] = self.protocol.accuracy(features, module.mean, module.std, (seen, labels))
            if probe is not None:
                figures["probe_top1"] = probe.accuracy(module, seen, labels)
            if self.rank and len(seen) > 1:
                self.possible_rank = min(seen.shape)
                figures |= {"rankme": rankme(seen), "feature_std": feature_std(seen)}
        return figures
