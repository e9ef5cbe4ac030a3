"""Pictures of reconstructions, drawn as training goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import lightning as L
from torch import Tensor

from mae.data.datamodule import ImageData
from mae.data.loading.batches import Batch, collate
from mae.data.source import evenly_spaced
from mae.data.statistics import false_colours, shown_channels, standardize, unstandardize
from mae.evaluation.reconstruct import reconstruct
from mae.training.callbacks.moments import due
from mae.training.pretraining import PretrainingModule


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
        self._shown: Batch | None = None

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
            self._shown = collate([dataset[0, int(i)] for i in chosen])
        shown, device = self._shown, module.device
        valid = None if shown.valid is None else shown.valid.to(device)
        images = standardize(shown.images.to(device), module.mean, module.std, valid)
        plan = module.validation_plan(shown.indices.to(device), valid)
        parts = reconstruct(module.model, images, plan, valid)
        # What a diverged model predicts is no number, and is shown black.
        rows = [self._visible(part, module).nan_to_num().cpu() for part in vars(parts).values()]
        return self.paint(rows, path)

    def _visible(self, images: Tensor, module: PretrainingModule) -> Tensor:
        """Return standardised images (B, C, H, W) as what a person can look at: of one or three channels, in [0, 1]."""
        shown = shown_channels(self.data.channels, self.data.bits)
        return unstandardize(images, module.mean, module.std) if shown is None else false_colours(images, shown)
