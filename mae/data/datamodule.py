"""Batches of uint8 images, in an order that is a function of the seed and the epoch."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from mae.data.decode import UnreadableImageError, to_channels
from mae.data.look import spread
from mae.data.sources import Source, Splits
from mae.data.statistics import measure_pixels
from mae.data.transforms import EvalTransform, TrainTransform

STATISTICS_IMAGES = 1024
Key = tuple[int, int]
"""(epoch, index): with the seed all that an image's crop and flip depend on."""


class Batch(NamedTuple):
    """``images`` uint8 (B, C, H, W); ``labels`` int64 (B,), -1 where there is none; ``indices`` int64 (B,) in the split."""

    images: Tensor
    labels: Tensor
    indices: Tensor


class Transform(Protocol):
    """A stored image to one of the model's size; all chance comes from the generator."""

    def __call__(self, image: Tensor, rng: random.Random) -> Tensor:
        """Return uint8 (C, H, W)."""
        ...


class ImageDataset(Dataset[tuple[Tensor, int, int]]):
    """A source seen through a transform, keyed by (epoch, index)."""

    def __init__(self, source: Source, transform: Transform, channels: int, seed: int = 0) -> None:
        self.source = source
        self.transform = transform
        self.channels = channels
        self.seed = seed

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: Key) -> tuple[Tensor, int, int]:
        epoch, index = key
        image, read = self._readable(index)
        rng = random.Random(f"{self.seed} {epoch} {index}")
        label = -1 if self.source.labels is None else int(self.source.labels[read])
        return to_channels(self.transform(image, rng), self.channels), label, index

    def _readable(self, index: int) -> tuple[Tensor, int]:
        """Return the image and its index, or where it is damaged the next one that is not: batches keep their size."""
        for step in range(len(self.source)):
            candidate = (index + step) % len(self.source)
            try:
                return self.source.image(candidate), candidate
            except UnreadableImageError as error:
                warnings.warn(f"{error}; the next image stands in for it", stacklevel=2)
        raise UnreadableImageError("no image of the split can be read")


class ShuffledSampler(Sampler[Key]):
    """A permutation drawn from (seed, epoch), cut to whole effective batches and dealt out to the ranks."""

    def __init__(self, length: int, effective_batch: int, seed: int, rank: int = 0, world: int = 1) -> None:
        self.length = length
        self.total = length // effective_batch * effective_batch
        self.seed = seed
        self.rank = rank
        self.world = world
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch, also after a resume."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.total // self.world

    def __iter__(self) -> Iterator[Key]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
        for index in order[: self.total][self.rank :: self.world]:
            yield self.epoch, int(index)


class OrderedSampler(Sampler[Key]):
    """Every index once, dealt out to the ranks without padding, so that no image counts twice."""

    def __init__(self, indices: np.ndarray, rank: int = 0, world: int = 1) -> None:
        self.indices = indices[rank::world]

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Key]:
        for index in self.indices:
            yield 0, int(index)


class ImageData(L.LightningDataModule):
    """Train, validation and test batches of one data set.

    Args:
        splits: The data.
        image_size: (H, W) that the model sees.
        channels: C that the model sees.
        effective_batch: Images per optimizer step, over devices and accumulation.
        micro_batch: Images per device and forward pass.
        min_scale: Smallest share of an image that a training crop holds.
        flip: Whether training images are mirrored half the time.
        num_workers: Processes that decode; 0 decodes in the training process.
        seed: Order, crops and flips are functions of (seed, epoch, index).
        rand_augment: Magnitude of RandAugment on training images; 0 is off.

    Raises:
        ValueError: There are fewer training images than one batch.
    """

    def __init__(
        self,
        splits: Splits,
        *,
        image_size: tuple[int, int],
        channels: int,
        effective_batch: int,
        micro_batch: int,
        min_scale: float,
        flip: bool,
        num_workers: int,
        seed: int,
        rand_augment: int = 0,
    ) -> None:
        super().__init__()
        count = len(splits.train)
        if count < effective_batch:
            raise ValueError(
                f"batch_size={effective_batch} is more than the {count} training images: choose {count} or less"
            )
        self.splits = splits
        self.channels = channels
        self.effective_batch = effective_batch
        self.micro_batch = micro_batch
        self.num_workers = num_workers
        self.seed = seed
        self.train_transform = TrainTransform(image_size, min_scale, flip, rand_augment)
        # ImageNet's custom for photographs is to cut an eighth off; small images have no border to spare.
        self.eval_transform = EvalTransform(image_size, share=0.875 if min(image_size) >= 112 else 1.0)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps; images that do not fill a last batch wait for another epoch's order."""
        return len(self.splits.train) // self.effective_batch

    def measure_pixels(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and deviation per channel over up to 1,024 training images, cropped as for evaluation."""
        dataset = ImageDataset(self.splits.train, self.eval_transform, self.channels)
        return measure_pixels(dataset[0, int(index)][0] for index in spread(len(dataset), STATISTICS_IMAGES))

    def train_dataloader(self) -> DataLoader[Any]:
        """Return shuffled, augmented training batches of this rank."""
        source = self.splits.train
        rank, world = self._rank()
        sampler = ShuffledSampler(len(source), self.effective_batch, self.seed, rank, world)
        return self._loader(ImageDataset(source, self.train_transform, self.channels, self.seed), sampler, keep=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return validation batches of this rank."""
        return self.evaluation_loader(self.splits.val, shard=True, keep=True)

    def test_dataloader(self) -> DataLoader[Any]:
        """Return batches of the split that is scored, of this rank."""
        return self.evaluation_loader(self.scored[1], shard=True)

    @property
    def scored(self) -> tuple[str, Source]:
        """Name and source of the split that has the last word: ``test``, or ``val`` where the data have no test split."""
        return ("val", self.splits.val) if self.splits.test is None else ("test", self.splits.test)

    def evaluation_loader(
        self, source: Source, *, most: int | None = None, shard: bool = False, keep: bool = False
    ) -> DataLoader[Any]:
        """Return batches of a source in order, centre-cropped; ``most`` images, evenly spread, where it is given."""
        indices = np.arange(len(source)) if most is None else spread(len(source), most)
        sampler = OrderedSampler(indices, *(self._rank() if shard else (0, 1)))
        return self._loader(ImageDataset(source, self.eval_transform, self.channels), sampler, keep=keep)

    def _rank(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _loader(self, dataset: ImageDataset, sampler: Sampler[Key], keep: bool) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            batch_size=self.micro_batch,
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=_collate,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=keep and self.num_workers > 0,
        )


def _collate(items: list[tuple[Tensor, int, int]]) -> Batch:
    images, labels, indices = zip(*items, strict=True)
    return Batch(torch.stack(images), torch.tensor(labels), torch.tensor(indices))
