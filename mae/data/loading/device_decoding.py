"""JPEGs decoded and cut where the model is: on a GPU, by nvJPEG. Workers only read files and draw windows."""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from mae.data.loading.batches import Batch, Crops, ImageDataset, Item, Transform, join_valid
from mae.data.reading.decode import (
    EncodedPicture,
    Picture,
    TensorPicture,
    UnreadableImageError,
    to_bits,
    to_channels,
    turned,
)
from mae.data.reading.transforms import Window, cut

# Since torchvision 0.29 each call warns that TorchCodec will take over; this module is the only place to change.
warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"torchvision\.io")


class Undecoded(NamedTuple):
    """An image that is still to be decoded, and what was drawn for each of its crops."""

    picture: EncodedPicture
    windows: list[Window]
    chance: list[random.Random]


class EncodedDataset(ImageDataset):
    """As ``ImageDataset``, but JPEGs are handed on as they are stored."""

    def crops(self, picture: Picture, epoch: int, index: int | str) -> Crops:
        """Return the crops of a picture, or what makes them; where JPEGs hold pixels, all are there."""
        if not isinstance(picture, EncodedPicture) or picture.mode is None:
            return super().crops(picture, epoch, index)
        chance = self.chance(epoch, index)
        return Crops(Undecoded(picture, [self.transform.draw(picture.size, rng) for rng in chance], chance))


class DeviceDecoder:
    """Turns items into a batch on a device.

    Args:
        device: Where the JPEGs are decoded: CUDA, or the CPU, to check against.
        transform: Finishes crops.
        channels: C of the result.
        bits: 8 for uint8, 16 for float32.
    """

    def __init__(self, device: torch.device, transform: Transform, channels: int, bits: int) -> None:
        self.device = device
        self.transform = transform
        self.channels = channels
        self.bits = bits

    def __call__(self, items: Sequence[Item]) -> Batch:
        """Decode, cut and join; an image that cannot be decoded is replaced by the one before it that could."""
        encoded = [item.images for item in items if isinstance(item.images, Undecoded)]
        decoded = iter(self._decode([one.picture for one in encoded]))
        crops: list[Tensor | None] = []
        unreadable = [message for item in items for message in item.unreadable]
        for item in items:
            if not isinstance(item.images, Undecoded):
                crops.append(item.images.to(self.device))
                continue
            image = next(decoded)
            if isinstance(image, UnreadableImageError):
                unreadable.append(str(image))
                crops.append(None)
            else:
                crops.append(self._cut(image, item.images))
        readable = [place for place, images in enumerate(crops) if images is not None]
        if not readable:
            raise UnreadableImageError(f"no image of a batch can be read: {unreadable[0]}")
        # Places of the images that are shown: each its own, or the nearest one before it, or else the first.
        shown = [
            max((other for other in readable if other <= place), default=readable[0]) for place in range(len(items))
        ]
        images = [crop for place in shown if (crop := crops[place]) is not None]
        repeats = len(images[0])
        labels = torch.tensor([items[place].label for place in shown], device=self.device)
        indices = torch.tensor([item.image for item in items], device=self.device)
        return Batch(
            torch.cat(images),
            labels.repeat_interleave(repeats),
            indices.repeat_interleave(repeats),
            tuple(unreadable),
            join_valid(images, [items[place].valid for place in shown]),
        )

    def _decode(self, pictures: Sequence[EncodedPicture]) -> list[Tensor | UnreadableImageError]:
        """Return the images, upright, (C, H, W) on the device, or what is wrong with them."""
        if not pictures:
            return []
        data = [torch.frombuffer(bytearray(picture.data), dtype=torch.uint8) for picture in pictures]
        mode = ImageReadMode.GRAY if self.channels == 1 else ImageReadMode.RGB
        try:
            images = decode_jpeg(data, mode=mode, device=self.device)
        except (RuntimeError, ValueError):  # one of them is damaged; it does not say which
            return [self._alone(picture) for picture in pictures]
        return [turned(image, picture.orientation) for image, picture in zip(images, pictures, strict=True)]

    def _alone(self, picture: EncodedPicture) -> Tensor | UnreadableImageError:
        """Decode one image on the CPU, which puts up with more."""
        try:
            image = picture.decode()
        except UnreadableImageError as error:
            return error
        return image.to(self.device)

    def _cut(self, image: Tensor, item: Undecoded) -> Tensor:
        """Return the crops (R, C, H, W) of a decoded image."""
        # Only a CPU resizes bytes; a GPU resizes floats as fast, and they are rounded back.
        wide = TensorPicture(image if self.device.type == "cpu" else image.float() / 255)
        images = cut(wide, item.windows, self.transform.image_size)
        finished = [self.transform.finish(part, rng) for part, rng in zip(images, item.chance, strict=True)]
        return torch.stack([to_channels(to_bits(part, self.bits), self.channels) for part in finished])
