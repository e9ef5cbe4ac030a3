"""What happens beside the training steps: pictures and kNN accuracy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from mae.data.datamodule import ImageData
from mae.data.look import spread
from mae.data.statistics import standardize, unstandardize
from mae.evaluation.features import frozen
from mae.evaluation.knn_probe import KnnProbe
from mae.evaluation.reconstruct import reconstruct
from mae.training.pretraining import PretrainingModule


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
            chosen = spread(len(self.data.splits.val), self.images)
            self._shown = torch.stack([dataset[0, int(i)][0] for i in chosen]), torch.from_numpy(chosen)
        images = standardize(self._shown[0].to(module.device), module.mean, module.std)
        plan = module.validation_plan(self._shown[1].to(module.device))
        parts = reconstruct(module.model, images, plan)
        rows = [unstandardize(part, module.mean, module.std).cpu() for part in vars(parts).values()]
        return self.paint(rows, path)


class KnnAccuracy(L.Callback):
    """Logs ``knn_top1`` as training goes on, where the data have labels.

    Args:
        probe: What to measure.
        times: How often in a run.
    """

    def __init__(self, probe: KnnProbe, times: int) -> None:
        self.probe = probe
        self.times = times

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure, where it is time; every rank does the same, so none waits for another."""
        if not due(trainer, self.times):
            return
        assert isinstance(pl_module, PretrainingModule)
        accuracy = self.probe.accuracy(frozen(pl_module.model.encoder, self.probe.pool), pl_module.mean, pl_module.std)
        pl_module.log("knn_top1", accuracy, sync_dist=True)
