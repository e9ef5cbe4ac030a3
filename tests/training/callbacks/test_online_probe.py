"""The online probe: what it costs, what it learns, and that pretraining does not notice it."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mae.data.statistics import standardize
from mae.evaluation.frozen.features import frozen
from mae.training.callbacks.alarms import Alarms
from mae.training.callbacks.measurements import Measurements
from mae.training.callbacks.online_probe import LARGEST, SHARE, SMALLEST, OnlineProbe, probe_schedule, relative_cost
from tests.runs import few_digits, job

PROBE_ALONE = ("callbacks.pictures=0", "callbacks.knn=false", "callbacks.rank=false")
NOISY = "+model.options.proj_drop_rate=0.1"
"""Makes every step draw from the global generator."""


def probe_of(prepared: Any) -> OnlineProbe:
    (probe,) = (callback for callback in prepared.trainer.callbacks if isinstance(callback, OnlineProbe))
    return probe


def probing(folder: Path, every: int, *overrides: str) -> Any:
    """Prepare a run whose probe learns more often than its budget allows: runs of a test are short."""
    prepared = job("pretrain", folder, *few_digits(), "callbacks.pictures=0", *overrides)
    probe_of(prepared).every = every
    return prepared


def checkpoint(folder: Path) -> dict[str, Any]:
    content = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert isinstance(content, dict)
    return content


def state(folder: Path) -> dict[str, Any]:
    found = checkpoint(folder)["callbacks"]["OnlineProbe"]
    assert isinstance(found, dict)
    return found


def assert_same(a: Any, b: Any) -> None:
    """Compare nested containers of tensors bit by bit."""
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for left, right in zip(a, b, strict=True):
            assert_same(left, right)
    else:
        assert a == b


def test_an_image_seen_whole_costs_four_thirds_of_a_training_step() -> None:
    assert relative_cost(196, 49, 10**9) == pytest.approx(4 / 3)
    # With everything visible a forward pass is a third of forward and backward.
    assert relative_cost(64, 64, 192) == pytest.approx(1 / 3)
    # Attention among many patches costs more than its share.
    assert relative_cost(196, 49, 768) == pytest.approx(196 * (4608 + 196) / (3 * 49 * (4608 + 49)))
    assert relative_cost(1024, 256, 192) > 1.5


@given(st.integers(1, 8192), st.sampled_from([(16, 4, 96), (196, 49, 768), (1024, 256, 192)]))
def test_the_budget_is_kept_and_used(step_images: int, size: tuple[int, int, int]) -> None:
    images, every = probe_schedule(step_images, *size)
    assert SMALLEST <= images <= LARGEST
    cost = relative_cost(*size) * images / step_images
    assert cost / every <= SHARE
    # One step earlier would be over the budget, in arithmetic or in the number of kernels.
    assert cost / (every - 1) > SHARE or every == math.ceil(0.5 / SHARE)


def test_the_pace_follows_from_the_run(tmp_path: Path) -> None:
    for accumulate in (1, 2):  # what a device trains on in a step, however it is divided
        probe = probe_of(job("pretrain", tmp_path / "run", f"trainer.accumulate={accumulate}"))
        assert (probe.batch, probe.every) == probe_schedule(128, 16, 4, 32)


class Watch(L.Callback):
    """Notes all that a probe could disturb: before the first step, after every step and after every validation."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.note(pl_module)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self.note(pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.note(pl_module)

    def note(self, pl_module: L.LightningModule) -> None:
        self.seen.append(
            [
                torch.get_rng_state(),
                repr(random.getstate()),
                np.random.get_state()[1].tolist(),  # noqa: NPY002 - the global state is what must not change
                [module.training for module in pl_module.modules()],
                [parameter.requires_grad for parameter in pl_module.parameters()],
                [None if parameter.grad is None else parameter.grad.clone() for parameter in pl_module.parameters()],
            ]
        )


def test_pretraining_does_not_notice_that_it_is_measured(tmp_path: Path) -> None:
    watches = {}
    for name in ("with", "without"):
        prepared = job("pretrain", tmp_path / name, *few_digits(), NOISY, "callbacks.pictures=0")
        callbacks = prepared.trainer.callbacks
        if name == "with":
            probe_of(prepared).every = 1
        else:
            callbacks[:] = [part for part in callbacks if not isinstance(part, OnlineProbe | Measurements | Alarms)]
        watches[name] = Watch()
        callbacks.append(watches[name])
        prepared.fit()
    # A sanity check, the start, and two epochs of ten steps and a validation.
    assert len(watches["with"].seen) == 1 + 1 + 2 * 11
    assert_same(watches["with"].seen, watches["without"].seen)
    kept = [checkpoint(tmp_path / name) for name in watches]
    for key in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert_same(kept[0][key], kept[1][key])


def test_the_head_learns_what_the_features_hold(tmp_path: Path) -> None:
    prepared = job("pretrain", tmp_path / "run", "epochs=4", *PROBE_ALONE)
    probe, module = probe_of(prepared), prepared.module
    probe.every = 1
    assert prepared.run()["probe_top1"] > 0.4
    # Its statistics are of the encoder that is scored.
    images, _ = probe._ready(module)
    with torch.no_grad():
        features = frozen(module.model.encoder)(standardize(images[::2], module.mean, module.std))
    assert torch.allclose(probe.head.norm.running_mean, features.mean(0), atol=1e-5)
    assert torch.allclose(probe.head.norm.running_var, features.var(0, unbiased=False), rtol=1e-3)


class Stop(L.Callback):
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.current_epoch == 1:
            raise RuntimeError("power cut")


def test_a_resume_repeats_the_probe_bit_for_bit(tmp_path: Path) -> None:
    # An epoch has 10 steps: updates every 3 fall elsewhere in each.
    whole = probing(tmp_path / "whole", 3, "epochs=3").run()
    cut = probing(tmp_path / "cut", 3, "epochs=3")
    cut.trainer.callbacks.insert(0, Stop())
    with pytest.raises(RuntimeError, match="power cut"):
        cut.run()
    resumed = probing(tmp_path / "cut", 3, "epochs=3", "resume=true").run()
    assert_same(state(tmp_path / "whole"), state(tmp_path / "cut"))
    assert state(tmp_path / "whole")["optimizer"]["state"][0]["step"] == 4 * 10
    assert resumed["probe_top1"] == whole["probe_top1"]


def test_each_update_and_each_seed_has_images_of_its_own(tmp_path: Path) -> None:
    runs = []
    for seed in (0, 1):
        prepared = probing(tmp_path / str(seed), 1, f"seed={seed}", "epochs=1", "callbacks.rank=false")
        drawn: list[bytes] = []
        probe = probe_of(prepared)

        def spy(module: Any, images: torch.Tensor, encode: Any = probe._encode, drawn: Any = drawn) -> torch.Tensor:
            drawn.append(images.numpy().tobytes())
            return encode(module, images)

        probe._encode = spy
        prepared.trainer.callbacks = [callback for callback in prepared.trainer.callbacks if callback is probe]
        prepared.trainer.fit(prepared.module, datamodule=prepared.data)
        runs.append(drawn)
    assert len(runs[0]) == len(runs[1]) == 10
    assert len({*runs[0], *runs[1]}) == 20


def test_accumulated_steps_are_one_step(tmp_path: Path) -> None:
    probing(tmp_path / "run", 1, "epochs=1", "trainer.accumulate=4").run()
    assert state(tmp_path / "run")["optimizer"]["state"][0]["step"] == 4 * 10


@pytest.mark.parametrize(
    ("overrides", "count"),
    [(("callbacks.probe_images=100",), 100), ((), 1293), (("data.image_size=64", "callbacks.probe_memory=1"), 244)],
)
def test_the_images_stay_within_number_and_memory(tmp_path: Path, overrides: tuple[str, ...], count: int) -> None:
    prepared = job("pretrain", tmp_path / "run", *overrides)
    images, labels = probe_of(prepared)._ready(prepared.module)
    assert len(images) == len(labels) == count
    assert images.dtype == torch.uint8
    # Evenly spread: every class is there.
    assert len(labels.unique()) == 10
