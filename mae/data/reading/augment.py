"""RandAugment on uint8 images, for fine-tuning."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from timm.data.auto_augment import rand_augment_transform
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from mae.data.reading.decode import to_channels


def can_augment(channels: int, bits: int) -> bool:
    """Whether RandAugment knows such images: its operations are Pillow's, on grey and colour of 8 bits."""
    return channels in (1, 3) and bits == 8


class RandAugment:
    """timm's RandAugment (Cubuk et al. 2019), as the paper fine-tunes with: two operations of a magnitude in 0 to 10.

    The magnitude has a deviation of 0.5, and operations grow stronger with it: ``rand-m9-mstd0.5-inc1`` at 9. Images of one
    channel are augmented as grey RGB ones.

    Args:
        magnitude: The paper's is 9; timm takes whole numbers.
    """

    def __init__(self, magnitude: int) -> None:
        # Rotations and shears uncover corners, which become mid grey. At a magnitude of exactly 10 timm keeps no bit of a
        # posterised image, which Pillow refuses.
        options = {"img_mean": (128, 128, 128), "magnitude_max": 9.99}
        self.apply = rand_augment_transform(f"rand-m{magnitude}-mstd0.5-inc1", options)

    def __call__(self, image: Tensor, rng: random.Random) -> Tensor:
        """Augment uint8 (C, H, W) with C of 1 or 3; all chance comes from the generator."""
        with _global_chance(rng):
            picture = self.apply(TF.to_pil_image(to_channels(image, 3)))
        return to_channels(TF.pil_to_tensor(picture), image.shape[0])


@contextmanager
def _global_chance(rng: random.Random) -> Iterator[None]:
    """Let timm, which draws from the global generators of random and numpy, draw what the generator says; then restore."""
    before, before_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(rng.getrandbits(64))
    np.random.seed(rng.getrandbits(32))  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(before_numpy)  # noqa: NPY002
