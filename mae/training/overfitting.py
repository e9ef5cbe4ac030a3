"""Overfitting one batch: a model that cannot learn it by heart has a defect."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import lightning as L
from torch.utils.data import DataLoader

from mae.data.datamodule import ImageData
from mae.data.loading.batches import Batch


class RepeatedBatch(Iterable[Batch]):
    """The first batch of a loader, as often as the loader has batches: the same pixels each time.

    Args:
        loader: Asked for one batch.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.length = len(loader)
        self.batch: Batch = next(iter(loader))

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Batch]:
        for _ in range(self.length):
            yield self.batch


class FirstBatch(L.LightningDataModule):
    """Data of which only the first batch is trained on; validation is as ever.

    Args:
        data: All of it.
    """

    def __init__(self, data: ImageData) -> None:
        super().__init__()
        self.data = data

    def prepare_data(self) -> None:
        """As the data do."""
        self.data.prepare_data()

    def train_dataloader(self) -> RepeatedBatch:
        """Return one batch of this rank, again and again."""
        self.data.trainer = self.trainer  # says which rank this is
        return RepeatedBatch(self.data.train_dataloader())

    def val_dataloader(self) -> DataLoader[Any]:
        """Return validation batches of this rank."""
        self.data.trainer = self.trainer
        return self.data.val_dataloader()
