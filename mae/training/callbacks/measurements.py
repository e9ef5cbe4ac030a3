"""What happens beside the training steps: pictures, and measures of the frozen features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from mae.data.datamodule import ImageData
from mae.data.inspection import evenly_spaced
from mae.data.statistics import false_colours, shown_channels, standardize, unstandardize
from mae.evaluation.frozen.features import frozen
from mae.evaluation.frozen.knn_probe import KnnProbe
from mae.evaluation.reconstruct import reconstruct
from mae.evaluation.representation import feature_std, patch_figures, rankme, unit_patches
from mae.models.backbones.backbone import Backbone
from mae.training.callbacks.online_probe import OnlineProbe
from mae.training.pretraining import PretrainingModule

PATCH_IMAGES = 256
"""Validation images whose patches are looked at: tens of thousands of patches at any size."""


def due(trainer: L.Trainer, times: int) -> bool:
    """Whether this validation is one of ``times``, evenly spread over the training, the last among them."""
    if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
        return False
    assert trainer.max_epochs is not None and trainer.check_val_every_n_epoch is not None, "epochs are always set"
    validations = max(1, trainer.max_epochs // trainer.check_val_every_n_epoch)
    done = (trainer.current_epoch + 1) // trainer.check_val_every_n_epoch
    return done * times // validations > (done - 1) * times // validations


class ReconstructionPictures(L.Callback):
    """Draws the same validation images behind the same masks as training goes on.

    Images of other than one or three channels, and of more than 8 bits, are shown in false colours, see ``false_colours``.

    Args:
        folder: Where the PNGs go, ``epoch_0010.png`` and so on.
        data: Its validation split is shown.
        images: How many.
        times: How often in a run.
        paint: Writes rows of images (B, C, H, W) in [0, 1] to a path.
    """

    def __init__(
        self, folder: Path, data: ImageData, images: int, times: int, paint: Callable[[Sequence[Tensor], Path], Path]
    ) -> None:
        self.folder = folder
        self.data = data
        self.paint = paint
        self.images = images
        self.times = times
        self._shown: tuple[Tensor, Tensor] | None = None

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw, where it is time."""
        if not trainer.is_global_zero or not due(trainer, self.times):
            return
        assert isinstance(pl_module, PretrainingModule)
        path = self.folder / f"epoch_{trainer.current_epoch + 1:04}.png"
        self.draw(pl_module, path)
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):
                logger.log_image("reconstructions", [str(path)], step=trainer.global_step)

    def draw(self, module: PretrainingModule, path: Path) -> Path:
        """Write one picture: original, masked, reconstruction and pasted, a column an image."""
        if self._shown is None:
            dataset = self.data.val_dataloader().dataset
            chosen = evenly_spaced(len(self.data.splits.val), self.images)
            self._shown = torch.stack([dataset[0, int(i)].images[0] for i in chosen]), torch.from_numpy(chosen)
        images = standardize(self._shown[0].to(module.device), module.mean, module.std)
        plan = module.validation_plan(self._shown[1].to(module.device))
        parts = reconstruct(module.model, images, plan)
        # What a diverged model predicts is no number, and is shown black.
        rows = [self._visible(part, module).nan_to_num().cpu() for part in vars(parts).values()]
        return self.paint(rows, path)

    def _visible(self, images: Tensor, module: PretrainingModule) -> Tensor:
        """Return standardised images (B, C, H, W) as what a person can look at: of one or three channels, in [0, 1]."""
        shown = shown_channels(self.data.channels, self.data.bits)
        return unstandardize(images, module.mean, module.std) if shown is None else false_colours(images, shown)


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
