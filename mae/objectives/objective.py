"""What every objective says of itself: what it asks of the hidden patches, how that is scored, and what a score means."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from mae.components.registry import Registry


@dataclass(frozen=True)
class Trivial:
    """What is scored without learning, and by what."""

    loss: float
    by: str


class PixelScale:
    """Between standardised patches (..., P*P*C) and their pixels in [0, 1].

    Args:
        mean: Of each channel, of pixels in [0, 1]; None where it was not measured.
        std: Deviation of each channel.
    """

    def __init__(self, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
        self.mean = mean
        self.std = std
        self._kept: tuple[Tensor, Tensor] | None = None

    def unit(self, patches: Tensor) -> Tensor:
        """Return standardised patches as pixels in [0, 1]."""
        mean, std = self._tensors(patches)
        return (patches.reshape(*patches.shape[:-1], -1, len(mean)) * std + mean).flatten(-2)

    def standardize(self, patches: Tensor) -> Tensor:
        """Return patches of pixels in [0, 1], standardised: the inverse of ``unit``."""
        mean, std = self._tensors(patches)
        return ((patches.reshape(*patches.shape[:-1], -1, len(mean)) - mean) / std).flatten(-2)

    def _tensors(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and deviation (C), on the device of a tensor."""
        assert self.mean is not None and self.std is not None, "pixels not measured"
        # Kept, since copying numbers to a GPU at each step would wait for it.
        if self._kept is None or self._kept[0].device != like.device or self._kept[0].dtype != like.dtype:
            self._kept = like.new_tensor(self.mean), like.new_tensor(self.std)
        return self._kept


class Objective(ABC):
    """What is predicted of each hidden patch, from the standardised patches themselves.

    An objective of one's own must give ``width``, ``target`` and ``loss``, and ``as_patches`` for pictures; the rest has answers
    that hold for any.

    Attributes:
        masking: The masking that it takes where none is asked for.
        hides: What a plan must hide for it: ``patches``, predicted by a decoder, or ``embeddings`` among all that the encoder sees.
        normalize: Whether each patch is predicted by its own mean and deviation.
        what: What the loss is measured on, in words.
        caption: What a picture of a prediction shows.
        config: What it was made from, where a registry made it.
    """

    masking: ClassVar[str] = "random"
    hides: ClassVar[Literal["patches", "embeddings"]] = "patches"
    normalize: bool = False
    config: dict[str, Any]

    @abstractmethod
    def width(self, patch_size: int, channels: int) -> int:
        """Return how many values are predicted for each hidden patch."""

    @abstractmethod
    def target(self, hidden: Tensor, scale: PixelScale, valid: Tensor | None = None) -> Tensor:
        """Return what is to be predicted of hidden patches, standardised, (B, M, P*P*C) in float32 or float64.

        ``valid`` is of the same shape, bool: which of the values are there. It is given where images lack pixels, and then alone.
        """

    @abstractmethod
    def loss(self, prediction: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return the loss, a scalar in float32 also under autocast, of a prediction as ``unpack`` gives it, on what is valid."""

    @abstractmethod
    def as_patches(self, prediction: Tensor, hidden: Tensor, scale: PixelScale, valid: Tensor | None = None) -> Tensor:
        """Return a prediction as standardised patches (B, M, P*P*C), to look at; ``hidden`` are the true ones."""

    def unpack(self, values: Tensor) -> Tensor:
        """Return the prediction that the model's output (B, M, width) stands for."""
        return values

    def check(self, *, patch_size: int, channels: int, bits: int = 8) -> None:
        """Raise a ValueError where patches of this size, or images of these channels and bits, hold no such target."""
        return

    def check_masking(self, name: str, hides: str) -> None:
        """Raise a ValueError where a masking, by its name and what it hides, leaves nothing to this objective."""
        if hides != self.hides:
            raise ValueError(
                f"masking={name} does not fit objective={self.title}: it takes masking={self.masking}, so leave masking out"
            )

    def figures(self, patches: Iterable[Tensor]) -> dict[str, float]:
        """Return what a data set makes of the objective, whatever is learned, from patches (B, L, P*P*C) of pixels in [0, 1]."""
        return {}

    def trivial(self, figures: Mapping[str, Any]) -> Trivial | None:
        """Return what is scored without learning; None where that is not known.

        Args:
            figures: Those of ``figures``, and those of every data set: ``patch_mean_loss``, the loss on normalised pixels of
                predicting each patch's mean, about 1 and less where patches are flat; ``flat_patches``, their share.
        """
        return None

    def concern(self, figures: Mapping[str, Any]) -> str | None:
        """Return what should worry a person about these data before a step is made, with a remedy; None if nothing."""
        return None

    @property
    def title(self) -> str:
        """Its name, or its class's."""
        config = getattr(self, "config", {})
        return str(config.get("name") or config.get("_target_") or type(self).__name__)

    @property
    def what(self) -> str:
        """What the loss is measured on, in words."""
        return "hidden patches"

    @property
    def caption(self) -> str:
        """What a picture of a prediction shows."""
        return "Validation images: what went in, what the encoder saw, what the decoder predicted, and both together."


OBJECTIVES = Registry(
    "objective",
    Objective,  # type: ignore[type-abstract]
    {
        "pixels": "mae.objectives.pixels.Pixels",
        "masked_patch_prediction": "mae.objectives.corrupted_patches.CorruptedPatches",
    },
)
