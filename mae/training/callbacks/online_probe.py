"""A linear probe on the frozen encoder, trained as pretraining goes on."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from mae.data.datamodule import ImageData
from mae.data.statistics import standardize
from mae.evaluation.frozen.features import frozen
from mae.masking.seeds import PROBE, seeded_generator
from mae.models.heads import LinearHead
from mae.training.pretraining import PretrainingModule

SHARE = 0.02
"""Of the time of the training steps, which the probe may take."""
SMALLEST, LARGEST = 64, 256
"""Images of one update: BatchNorm wants many, memory has an end."""
UPDATES = 4
"""Steps of the head on one batch of features: beside the encoder's pass they cost next to nothing."""
LR = 3e-3
"""Of Adam. Higher ones learn faster and end noisier; on separable features 1e-3 to 1e-2 end within a few points."""
STATISTICS_IMAGES = 1024


def relative_cost(patches: int, visible: int, width: int) -> float:
    """Return the cost of encoding an image whole, without gradients, as a share of a training step on one image.

    A ViT block of width D multiplies and adds 12 N D^2 times for N tokens in its matrices and 2 N^2 D times in attention:
    2 N D (6D + N) in all. A whole image is one forward pass over L patches. A training step is a forward pass over the V
    visible ones and a backward pass, which costs two. So the share is L (6D + L) / (3 V (6D + V)): 4/3 where V = L / 4 and
    patches are fewer than the width. Decoder and optimizer are left out, so the true share is smaller.
    """
    return patches * (6 * width + patches) / (3 * visible * (6 * width + visible))


def probe_schedule(step_images: int, patches: int, visible: int, width: int) -> tuple[int, int]:
    """Return (images of an update, training steps from one update to the next).

    An update encodes half of what a device trains on in a step, within bounds. n steps apart, it takes
    cost * images / (n * step_images) of their time, and n is the least that keeps this below ``SHARE``. Where starting
    kernels is what takes the time (a small model on a GPU) sizes do not count: an update starts about half as many as a
    step (a third for the forward pass, the rest for the head), so n is no less than 1 / (2 * SHARE).

    Args:
        step_images: Images per optimizer step and device.
        patches: L.
        visible: V.
        width: D.
    """
    images = min(LARGEST, max(SMALLEST, step_images // 2))
    share = relative_cost(patches, visible, width) * images / step_images
    return images, max(math.ceil(0.5 / SHARE), math.ceil(share / SHARE))


class OnlineProbe(L.Callback):
    """Trains a BatchNorm without affine parameters and a linear layer on mean-pooled patch tokens of training images.

    The images are decoded once, centre-cropped, and kept on the device as they come. Encoder, gradients, modes and the global
    random state are left as they are. Every rank does the same, so that none waits for another.

    Args:
        data: Labelled splits; ``train`` is learned from.
        images: How many, at most, evenly spread.
        megabytes: Of memory that they may take.
        batch: Images of an update.
        every: Training steps from one update to the next.
        seed: The images of an update are a function of (seed, step).
    """

    def __init__(self, data: ImageData, *, images: int, megabytes: int, batch: int, every: int, seed: int) -> None:
        height, width = data.eval_transform.image_size
        self.data = data
        size = data.channels * height * width * (1 if data.bits == 8 else 4)  # floats are of four bytes
        self.most = max(1, min(images, megabytes * 10**6 // size))
        self.batch = batch
        self.every = every
        self.seed = seed
        self.head: LinearHead
        self.optimizer: torch.optim.Adam
        self._done = -1
        self._stored: dict[str, Any] = {}
        self._images: tuple[Tensor, Tensor] | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Decode the images and build the head before the first step, so that no step is slow."""
        assert isinstance(pl_module, PretrainingModule)
        self._ready(pl_module)

    # At the start of a step, not at its end: there the clock would take it for waiting for data.
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Update the head, where it is time."""
        step = trainer.global_step
        if step % self.every or step == self._done:  # an accumulated step has several batches
            return
        self._done = step
        assert isinstance(pl_module, PretrainingModule)
        images, labels = self._ready(pl_module)
        generator = seeded_generator(pl_module.device, PROBE, self.seed, step)
        chosen = torch.randint(len(images), (self.batch,), generator=generator, device=pl_module.device)
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            features = self._encode(pl_module, images[chosen])
        self.head.train()
        for _ in range(UPDATES):
            self.optimizer.zero_grad()
            F.cross_entropy(self.head(features.float()), labels[chosen]).backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()

    @torch.no_grad()
    def accuracy(self, module: PretrainingModule, features: Tensor, labels: Tensor) -> float:
        """Return the share of validation features (N, D), with their labels (N,), that the head classifies rightly.

        BatchNorm's running statistics lie an encoder or two back, as the updates are far apart; they are first measured anew,
        on up to 1,024 of the training images.
        """
        images, _ = self._ready(module)
        chosen = images[:: math.ceil(len(images) / STATISTICS_IMAGES)]
        seen = torch.cat([self._encode(module, part) for part in torch.split(chosen, self.batch)]).float()
        norm = self.head.norm
        assert isinstance(norm, torch.nn.BatchNorm1d) and norm.running_mean is not None and norm.running_var is not None
        norm.running_mean.copy_(seen.mean(dim=0))
        norm.running_var.copy_(seen.var(dim=0, unbiased=False))
        self.head.eval()
        predicted = self.head(features.to(seen.device)).argmax(dim=1)
        return float((predicted == labels.to(seen.device)).float().mean())

    def state_dict(self) -> dict[str, Any]:
        """Return head and optimizer, so that a resume repeats."""
        if self._images is None:
            return self._stored
        return {"head": self.head.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until the head is built, on the device that is not known yet."""
        self._stored = state_dict

    def _encode(self, module: PretrainingModule, images: Tensor) -> Tensor:
        return frozen(module.model.encoder)(standardize(images, module.mean, module.std))

    def _ready(self, module: PretrainingModule) -> tuple[Tensor, Tensor]:
        """Return images and labels on the module's device; decode them, and build the head, where that is still to be done."""
        if self._images is None:
            source, device = self.data.splits.train, module.device
            # A loader draws the seed of its workers, and a layer its first weights, from the global generators.
            with isolate_rng(include_cuda=False):
                batches = list(self.data.evaluation_loader(source, most=self.most))
                self.head = LinearHead(module.model.encoder.width, len(source.classes), batch_norm=True).to(device)
            torch.nn.init.zeros_(self.head.linear.weight)
            self.optimizer = torch.optim.Adam(self.head.parameters(), lr=LR)
            if self._stored:
                self.head.load_state_dict(self._stored["head"])
                self.optimizer.load_state_dict(self._stored["optimizer"])
            images, labels = (torch.cat([batch[part] for batch in batches]).to(device) for part in (0, 1))
            self._images = images, labels
        return self._images
