"""Images of a source to batches, by a loader that can go on in the middle of an epoch."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mae.data.loading.order import Key, ResumableSampler
from mae.data.loading.unreadable import UnreadableImages
from mae.data.reading.decode import Picture, UnreadableImageError, to_bits, to_channels
from mae.data.reading.transforms import Window, cut, cut_missing
from mae.data.source import Source


class Batch(NamedTuple):
    """What a step sees.

    Attributes:
        images: (B, C, H, W), uint8 or float32.
        labels: int64 (B,), -1 where there is none; or masks, uint8 (B, H, W), 255 where there is none.
        indices: int64 (B,), in the split; of a stream, a number that is a function of the image's name.
        unreadable: Names of images that others stand in for.
        valid: (B, H, W) bool, which pixels are there; None where all are. The others are filled with the mean of their image.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    unreadable: tuple[str, ...] = ()
    valid: Tensor | None = None


class Transform(Protocol):
    """A stored image to one of the model's size; all chance comes from the generator."""

    image_size: tuple[int, int]
    keeps_places: bool
    """Whether ``finish`` flips alone, so that what is known of a place can follow it."""

    def draw(self, size: tuple[int, int], rng: random.Random) -> Window:
        """Return the part of an image of ``size`` (H, W) that is seen."""
        ...

    def finish(self, image: Tensor, rng: random.Random) -> Tensor:
        """Return what was cut out, flipped and augmented."""
        ...


class Crops(NamedTuple):
    """Crops of one image, (R, C, H, W) or what makes them, and which of their pixels are there, (R, H, W); None where all are."""

    images: Any
    valid: Tensor | None = None


class Item(NamedTuple):
    """The crops of one image, as ``Crops`` has them; its label, or its mask's crops (R, H, W); which image it is."""

    images: Any
    label: Any
    image: int
    unreadable: tuple[str, ...]
    valid: Tensor | None = None


class ImageDataset(Dataset[Item]):
    """A source seen through a transform, keyed by (epoch, index).

    Args:
        source: Images as stored.
        transform: Draws windows and finishes them.
        channels: C of the result.
        seed: Crops and flips are functions of (seed, epoch, index).
        bits: 8 for uint8, 16 for float32 that keeps the full depth.
        repeats: Crops of each image, which is decoded once.
    """

    def __init__(
        self, source: Source, transform: Transform, channels: int, seed: int = 0, bits: int = 8, repeats: int = 1
    ) -> None:
        self.source = source
        self.transform = transform
        self.channels = channels
        self.seed = seed
        self.bits = bits
        self.repeats = repeats

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: Key) -> Item:
        """Return the crops of an image; where it is damaged, of the next one that is not: batches keep their size."""
        epoch, index = key
        unreadable: list[str] = []
        for step in range(len(self.source)):
            candidate = (index + step) % len(self.source)
            try:
                crops, label = self.example(candidate, epoch, index)
            except UnreadableImageError as error:
                unreadable.append(str(error))
                continue
            return Item(crops.images, label, index, tuple(unreadable), crops.valid)
        raise UnreadableImageError(f"no image of the split can be read: {unreadable[0]}")

    def example(self, candidate: int, epoch: int, index: int) -> tuple[Crops, Any]:
        """Return the crops of an image, in the place of ``index``, and its label."""
        label = -1 if self.source.labels is None else int(self.source.labels[candidate])
        return self.crops(self.source.open(candidate), epoch, index), label

    def chance(self, epoch: int, index: int | str) -> list[random.Random]:
        """Return what each crop of an image is drawn from."""
        return [
            random.Random(f"{self.seed} {epoch} {index}" + (f" {repeat}" if repeat else ""))
            for repeat in range(self.repeats)
        ]

    def crops(self, picture: Picture, epoch: int, index: int | str) -> Crops:
        """Return the crops of a picture that an epoch sees."""
        chance = self.chance(epoch, index)
        windows = [self.transform.draw(picture.size, rng) for rng in chance]
        images = cut(picture, windows, self.transform.image_size)
        finished = [self.transform.finish(image, rng) for image, rng in zip(images, chance, strict=True)]
        stored = torch.stack([to_channels(to_bits(image, self.bits), self.channels) for image in finished])
        return Crops(stored, self.valid(picture, epoch, index))

    def valid(self, picture: Picture, epoch: int, index: int | str) -> Tensor | None:
        """Return which pixels (R, H, W) of the crops of a decoded picture are there; None where all are, or places are lost."""
        if picture.missing is None or not self.transform.keeps_places:
            return None
        parts = []
        for rng in self.chance(epoch, index):  # drawn anew, as for the image: the same windows, and the same flips
            window = self.transform.draw(picture.size, rng)
            there = cut_missing(picture.missing, window, self.transform.image_size)
            parts.append(self.transform.finish(there, rng))
        return None if all(bool(part.all()) for part in parts) else torch.stack(parts)


def collate(items: Sequence[Item]) -> Batch:
    """Join the crops of images into a batch; those of one image stand side by side."""
    images = [item.images for item in items]
    repeats = len(images[0])
    labels = [item.label for item in items]
    masks = isinstance(labels[0], Tensor)
    return Batch(
        torch.cat(images),
        torch.cat(labels) if masks else torch.tensor(labels).repeat_interleave(repeats),
        torch.tensor([item.image for item in items]).repeat_interleave(repeats),
        tuple(message for item in items for message in item.unreadable),
        join_valid(images, [item.valid for item in items]),
    )


def join_valid(images: Sequence[Tensor], valid: Sequence[Tensor | None]) -> Tensor | None:
    """Return which pixels of a batch are there, (B, H, W), of what is known of each image (R, C, H, W); None where all are."""
    if all(part is None for part in valid):
        return None
    shape, device = images[0].shape, images[0].device
    everything = torch.ones(shape[0], *shape[-2:], dtype=torch.bool, device=device)
    return torch.cat([everything if part is None else part.to(device) for part in valid])


class BatchLoader(DataLoader[Any]):
    """Batches of a data set; knows how far it is, so that a stopped epoch goes on with the very next batch.

    Lightning keeps the state of a loader in its checkpoints, and gives it back where a run goes on within an epoch.

    Args:
        dataset: Gives items.
        sampler: Gives keys.
        unreadable: Hears of images that cannot be read.
        finish: Makes a batch, in this process, of what the workers give; by default they give batches.
        options: Of a torch DataLoader.
    """

    def __init__(
        self,
        dataset: Dataset[Item],
        sampler: ResumableSampler,
        unreadable: UnreadableImages,
        finish: Callable[[Sequence[Item]], Batch] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            dataset,
            sampler=sampler,
            collate_fn=list if finish else collate,
            worker_init_fn=leave_signals,
            **options,
        )
        self.finish = finish
        self.order = sampler
        self.unreadable = unreadable
        self._done = 0
        self._resume_at = 0

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        """Yield the batches of an epoch, or after ``load_state_dict`` those that are left of it."""
        self._done, self._resume_at = self._resume_at, 0
        assert self.batch_size is not None, "batches are made by this loader"
        self.order.first = self._done * self.batch_size
        for given in super().__iter__():
            batch = self.finish(given) if self.finish else given
            self.unreadable.add(batch.unreadable)  # where this ends the run, the batch is not counted as taken
            self._done += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the number of batches of this epoch that were taken, and what they are batches of."""
        return {"batches": self._done, **self._kind()}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Begin the next iteration after these batches.

        Raises:
            AnotherLoaderError: They were batches of another size, or of other data.
        """
        now = self._kind()
        then = {key: state_dict.get(key, value) for key, value in now.items()}
        if then != now:
            was, is_ = (
                f"{one['length']:,} batches of {one['batch']}, from {one['images']:,} images" for one in (then, now)
            )
            raise AnotherLoaderError(
                f"the run was stopped amid an epoch of {was}, and now it has {is_}: resume with the same data, "
                f"trainer.devices and trainer.accumulate"
            )
        self._resume_at = state_dict["batches"] % max(1, len(self))

    def _kind(self) -> dict[str, int]:
        assert self.batch_size is not None, "batches are made by this loader"
        return {"length": len(self), "batch": self.batch_size, "images": len(self.dataset)}  # type: ignore[arg-type]


class AnotherLoaderError(ValueError):
    """A run that was stopped within an epoch cannot go on there with other batches."""


def leave_signals(worker: int) -> None:
    """Let the first process decide what a Ctrl-C means, and let it end its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
