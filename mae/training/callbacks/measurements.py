"""Measures of the frozen features, beside the training steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import lightning as L
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from mae.evaluation.frozen.features import frozen, raw_pixels
from mae.evaluation.frozen.knn import Labelled
from mae.evaluation.frozen.solved_probes import ValidationImages, knn_right, probe_right
from mae.evaluation.paired import Difference, decisive, paired_difference
from mae.evaluation.representation import feature_std, patch_figures, rankme, unit_patches
from mae.models.backbones.backbone import Backbone
from mae.training.callbacks.moments import due
from mae.training.pretraining import PretrainingModule

PATCH_IMAGES = 256
"""Validation images whose patches are looked at: tens of thousands of patches at any size."""
MEASURES = {"probe": probe_right, "knn": knn_right}
"""What is measured with labels, in the order in which they are asked, see ``decisive``."""


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured of one kind of features.

    Attributes:
        figures: By their plain names.
        right: (Q,) bool, which validation images each of ``MEASURES`` classifies rightly.
    """

    figures: dict[str, float] = field(default_factory=dict)
    right: dict[str, Tensor] = field(default_factory=dict)

    @property
    def all(self) -> dict[str, float]:
        """All figures, accuracies among them."""
        return {**{f"{name}_top1": float(right.float().mean()) for name, right in self.right.items()}, **self.figures}

    def named(self, other: str, names: Mapping[str, Any]) -> dict[str, float]:
        """Return all figures that are among ``names``, under the name of other features."""
        return {f"{key}_{other}": value for key, value in self.all.items() if key in names}


class Measurements(L.Callback):
    """Measures frozen features before training and as it goes on, on images that are encoded once for all measures.

    Logs ``knn_top1`` and ``probe_top1``, where the data have labels, and ``rankme`` and ``feature_std`` in any case. Every rank
    does the same, so that none waits for another. Encoder, modes and the global random state are left as they are.

    Args:
        images: What is measured on.
        times: How often in a run.
        knn: Whether whitened kNN is measured.
        rank: Whether RankMe and the spread are measured.
        probe: Whether a linear probe is solved.
        untrained: Builds the encoder as it was before training, for a run that goes on and did not measure it then.
    """

    def __init__(
        self,
        images: ValidationImages,
        times: int,
        *,
        knn: bool,
        rank: bool,
        probe: bool,
        untrained: Callable[[], Backbone],
    ) -> None:
        self.images = images
        self.times = times
        self.rank = rank
        self.labelled = [name for name, wanted in (("probe", probe), ("knn", knn)) if wanted]
        self.untrained = untrained
        self.patches: dict[str, float] = {}
        self.before = Measured()
        self.latest = Measured()
        self.bank: Labelled | None = None
        self.possible_rank = 0
        self.step = -1

    @property
    def any(self) -> bool:
        """Whether there is anything to measure."""
        return bool(self.rank or self.labelled)

    @property
    def decided(self) -> tuple[str, Difference] | None:
        """The measure that says whether training has helped so far, and its difference from random weights.

        That is the probe, or where it is a tie kNN; None without labels, or before there are figures.
        """
        found = self._beyond(self.before)
        return (decisive(found), found[decisive(found)]) if found else None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure the encoder while its weights are random still, and the patches."""
        assert isinstance(pl_module, PretrainingModule)
        self._measure_patches(pl_module)
        if trainer.global_step == 0:
            self.before = self._measure(pl_module, pl_module.model.encoder)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure, where it is time."""
        if not due(trainer, self.times):
            return
        assert isinstance(pl_module, PretrainingModule)
        self._measure_now(trainer, pl_module)
        pl_module.log_dict(self.latest.all, sync_dist=True)

    def results(self, trainer: L.Trainer, module: PretrainingModule) -> dict[str, Any]:
        """Return all figures of the trained encoder beside those of the same one before training and of raw pixels.

        With them come ``differences`` of the accuracies, image by image, as (mean, low, high), and ``verdict``, the word for
        them: that of the probe against random weights, or where it is a tie that of kNN. ``measured_images`` are the validation
        images of each accuracy, ``measured_labels`` the training images that it follows from.
        """
        self._measure_patches(module)
        if self.step != trainer.global_step:
            self._measure_now(trainer, module)
        figures: dict[str, Any] = self.latest.all
        if figures.keys() - self.before.all.keys():
            self.before = self._measure(module, self.untrained().to(module.device))
        figures |= self.before.named("random", figures)
        if self.latest.right:
            pixels = self._measure_pixels(module)
            figures |= {**pixels.named("pixels", figures), **self._differences(pixels), **self._counted()}
        return {**figures, **self.patches}

    def training_features(self, trainer: L.Trainer, module: PretrainingModule) -> Tensor:
        """Return pooled features (N, D) of training images as the encoder makes them now; they are extracted once."""
        if self.bank is None or self.step != trainer.global_step:
            with isolate_rng(include_cuda=False):
                self.bank = self.images.bank_of(frozen(module.model.encoder), module.mean, module.std)
        return self.bank[0]

    def state_dict(self) -> dict[str, Any]:
        """Return what can only be measured at the start of a run, and on how many images it was."""
        return {
            "before": self.before.figures,
            "right": self.before.right,
            "images": self._counts,
            "patches": self.patches,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what was measured at the start of the run, if it was on the same images.

        Runs of earlier versions did not keep which images were right, and are measured anew.
        """
        self.patches = state_dict["patches"]
        if state_dict.get("images") == self._counts:
            self.before = Measured(state_dict["before"], state_dict["right"])

    @property
    def _counts(self) -> list[int]:
        return [self.images.bank, self.images.queries]

    def _differences(self, pixels: Measured) -> dict[str, Any]:
        """Return the differences of the accuracies from those of random weights and raw pixels, and the word for them."""
        others = (("random", self._beyond(self.before)), ("pixels", self._beyond(pixels)))
        found = {f"{name}_{other}": part for other, parts in others for name, part in parts.items()}
        decided = self.decided
        return {
            "differences": {name: difference.plain for name, difference in found.items()},
            **({"verdict": decided[1].word} if decided else {}),
        }

    def _beyond(self, other: Measured) -> dict[str, Difference]:
        """Return by how much the latest accuracies are above others on the same images, in the order of ``MEASURES``."""
        pairs = {name: (self.latest.right.get(name), other.right.get(name)) for name in MEASURES}
        return {
            name: paired_difference(ours, theirs)
            for name, (ours, theirs) in pairs.items()
            if ours is not None and theirs is not None
        }

    def _counted(self) -> dict[str, int]:
        labels = {"measured_labels": len(self.bank[0])} if self.bank else {}
        return {"measured_images": len(next(iter(self.latest.right.values()))), **labels}

    def _measure_patches(self, module: PretrainingModule) -> None:
        if not self.patches:
            data = self.images.data
            with isolate_rng(include_cuda=False):
                batches = data.evaluation_loader(data.splits.val, most=PATCH_IMAGES)
                model = module.model
                self.patches = patch_figures(batches, model.patch_size, module.mean, module.std)
                self.patches |= model.objective.figures(unit_patches(batches, model.patch_size))

    def _measure_now(self, trainer: L.Trainer, module: PretrainingModule) -> None:
        """Measure the encoder that is trained, and keep the features of training images."""
        self.bank = None
        self.latest = self._measure(module, module.model.encoder, keep=True)
        self.step = trainer.global_step

    def _measure(self, module: PretrainingModule, encoder: Backbone, *, keep: bool = False) -> Measured:
        """Measure an encoder; nothing where its features are not numbers, or where nothing is to be measured."""
        if not self.any:
            return Measured()
        features, images, figures = frozen(encoder), self.images, {}
        with isolate_rng(include_cuda=False):  # a loader draws the seed of its workers
            queries = images.queries_of(features, module.mean, module.std)
            if not queries[0].isfinite().all():
                return Measured()
            if self.rank and len(queries[0]) > 1:
                self.possible_rank = min(queries[0].shape)
                figures = {"rankme": rankme(queries[0]), "feature_std": feature_std(queries[0])}
            if not self.labelled:
                return Measured(figures)
            bank = images.bank_of(features, module.mean, module.std)
        if not bank[0].isfinite().all():
            return Measured()
        if keep:
            self.bank = bank
        return Measured(figures, self._right(bank, queries))

    def _measure_pixels(self, module: PretrainingModule) -> Measured:
        images = self.images
        with isolate_rng(include_cuda=False):
            bank = images.bank_of(raw_pixels, module.mean, module.std)
            queries = images.queries_of(raw_pixels, module.mean, module.std)
        return Measured(right=self._right(bank, queries))

    def _right(self, bank: Labelled, queries: Labelled) -> dict[str, Tensor]:
        return {name: MEASURES[name](bank, queries, self.images.classes) for name in self.labelled}
