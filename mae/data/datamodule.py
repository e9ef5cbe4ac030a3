"""Train, validation and test batches of one data set."""

from __future__ import annotations

from typing import Any

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader

from mae.data.loading.batches import BatchLoader, ImageDataset
from mae.data.loading.device_decoding import DeviceDecoder, EncodedDataset
from mae.data.loading.order import OrderedSampler, ResumableSampler, ShuffledSampler
from mae.data.loading.unreadable import UnreadableImages
from mae.data.reading.augment import can_augment
from mae.data.reading.transforms import EvalTransform, TrainTransform
from mae.data.segmentation.masks import SegmentationDataset
from mae.data.source import Source, drawn, evenly_spaced
from mae.data.splits import Splits
from mae.data.statistics import measure_pixels
from mae.data.streaming.stream import Stream
from mae.data.streaming.stream_order import EncodedStreamDataset, StreamDataset, StreamSampler

STATISTICS_IMAGES = 1024
EVALUATION_BATCH = 64
"""Images that are evaluated together, or more: small batches are for steps, and evaluation keeps nothing for a way back.

With masks it is as many as a step takes: scores of every class for every pixel are what fills the memory then.
"""


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
        bits: 8 for batches of uint8, 16 for float32 that keeps the depth of 16-bit and float images.
        repeats: Crops of each training image in a batch, for one decoding (Hoffer et al. 2019, as video MAEs train); an epoch
            still sees every image once, and has as many times the steps.
        decode: ``cpu``, or ``device``: training JPEGs are decoded and cut on the trainer's device.
        unreadable: Counts images that cannot be read, and stops where they are too many.
        masks: Labels of a batch are masks, (B, H, W); evaluation then cuts off no more than the shape does.

    Raises:
        ValueError: There are fewer training images than one batch takes, crops do not divide the batch, or RandAugment or
            decoding on the device is asked for on images that it does not know.
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
        bits: int = 8,
        repeats: int = 1,
        decode: str = "cpu",
        unreadable: UnreadableImages | None = None,
        masks: bool = False,
    ) -> None:
        super().__init__()
        _refuse_augmentation(rand_augment, channels, bits, decode, masks)
        _refuse_batches(len(splits.train), effective_batch, micro_batch, repeats)
        self.splits = splits
        self.channels = channels
        self.effective_batch = effective_batch
        self.micro_batch = micro_batch
        self.num_workers = num_workers
        self.seed = seed
        self.bits = bits
        self.repeats = repeats
        self.decode = decode
        self.unreadable = unreadable or UnreadableImages(sum(len(part) for part in splits.parts), budget=1.0)
        self.train_transform = TrainTransform(image_size, min_scale, flip, rand_augment)
        self.examples = SegmentationDataset if masks else ImageDataset
        self.evaluation_batch = micro_batch if masks else max(micro_batch, EVALUATION_BATCH)
        # ImageNet's custom for photographs is to cut an eighth off; small images have no border to spare, and of masks all counts.
        self.eval_transform = EvalTransform(image_size, share=0.875 if min(image_size) >= 112 and not masks else 1.0)

    def prepare_data(self) -> None:
        """Let the data keep what took long to find out; Lightning calls this in one process of a machine."""
        if self.splits.keep is not None:
            self.splits.keep()

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps; images that do not fill a last batch wait for another epoch's order."""
        return len(self.splits.train) * self.repeats // self.effective_batch

    @property
    def statistics_images(self) -> int:
        """On how many images ``measure_pixels`` looks."""
        return min(len(self.splits.train.sample), STATISTICS_IMAGES)

    def measure_pixels(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and deviation per channel over up to 1,024 training images, cropped as for evaluation."""
        dataset = ImageDataset(self.splits.train.sample, self.eval_transform, self.channels, bits=self.bits)
        items = (dataset[0, int(index)] for index in evenly_spaced(len(dataset), STATISTICS_IMAGES))
        return measure_pixels((item.images[0], None if item.valid is None else item.valid[0]) for item in items)

    def train_dataloader(self) -> DataLoader[Any]:
        """Return shuffled, augmented training batches of this rank."""
        source, (rank, world) = self.splits.train, self._rank()
        batch, effective_batch = self.micro_batch // self.repeats, self.effective_batch // self.repeats
        shown = (self.train_transform, self.channels, self.seed, self.bits, self.repeats)
        encoded = self.decode == "device"
        dataset: ImageDataset
        sampler: ResumableSampler
        if isinstance(source, Stream):
            readers = source.readers_for(world, self.num_workers)
            kind = EncodedStreamDataset if encoded else StreamDataset
            dataset = kind(source, *shown, batch=batch, readers=readers, rank=rank, world=world)
            sampler = StreamSampler(len(source), effective_batch, world)
        else:
            dataset = (EncodedDataset if encoded else self.examples)(source, *shown)
            sampler = ShuffledSampler(len(source), effective_batch, self.seed, rank, world)
        return self._loader(dataset, sampler, batch, keep=True)

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
        """Return batches of a source in order, centre-cropped; of ``most`` images, drawn at random, where it is given."""
        indices = np.arange(len(source)) if most is None else drawn(len(source), most)
        sampler = OrderedSampler(indices, *(self._rank() if shard else (0, 1)))
        dataset = self.examples(source, self.eval_transform, self.channels, bits=self.bits)
        return self._loader(dataset, sampler, self.evaluation_batch, keep=keep)

    def _rank(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _loader(self, dataset: ImageDataset, sampler: ResumableSampler, batch: int, keep: bool) -> DataLoader[Any]:
        decoder = None
        if isinstance(dataset, EncodedDataset):
            device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
            decoder = DeviceDecoder(device, dataset.transform, self.channels, self.bits)
        return BatchLoader(
            dataset,
            sampler,
            self.unreadable,
            finish=decoder,
            batch_size=batch,
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=keep and self.num_workers > 0,
        )


def _refuse_augmentation(rand_augment: int, channels: int, bits: int, decode: str, masks: bool) -> None:
    if rand_augment and not can_augment(channels, bits):
        raise ValueError(
            f"protocol.rand_augment={rand_augment} works on grey and colour images of 8 bits, and these have {channels} "
            f"channels of {bits} bits: protocol.rand_augment=0 leaves it out"
        )
    if rand_augment and decode == "device":
        raise ValueError(f"protocol.rand_augment={rand_augment} works on the CPU: data.decode=cpu, or leave it out")
    if masks and rand_augment:
        raise ValueError(
            f"protocol.rand_augment={rand_augment} moves pixels and leaves their masks behind: protocol.rand_augment=0"
        )
    if masks and decode == "device":
        raise ValueError("data.decode=device cuts images alone, and not their masks: data.decode=cpu cuts both")


def _refuse_batches(images: int, effective_batch: int, micro_batch: int, repeats: int) -> None:
    if micro_batch % repeats:
        fitting = effective_batch // micro_batch * max(1, round(micro_batch / repeats)) * repeats
        raise ValueError(
            f"data.repeats={repeats} crops of an image do not divide the {micro_batch} images of a forward pass: "
            f"choose a divisor, or batch_size={fitting}"
        )
    if images * repeats < effective_batch:
        raise ValueError(
            f"batch_size={effective_batch} is more than the {images} training images"
            f"{f' x data.repeats={repeats}' if repeats > 1 else ''}: choose {images * repeats} or less"
        )
