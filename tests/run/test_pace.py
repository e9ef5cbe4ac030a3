"""``minutes=N``: steps are timed before the run, and what was timed leaves no trace in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mae.config.composing import compose
from mae.run.pretrain import Pretraining, prepare
from tests.runs import BARE, DECODER, ENCODER, QUIET, few_digits


def prepared(folder: Path, *overrides: str) -> Pretraining:
    given = [*ENCODER, *DECODER, *QUIET, *BARE, *few_digits(), f"run_dir={folder}", *overrides]
    return prepare(compose("pretrain", given), given)


def weights(run: Pretraining) -> dict[str, torch.Tensor]:
    return run.module.model.state_dict()


def test_epochs_are_chosen_by_the_clock_and_weights_are_as_before(tmp_path: Path) -> None:
    timed, given = prepared(tmp_path / "a", "minutes=0.02"), prepared(tmp_path / "b", "epochs=2")
    config = timed.setting.config
    assert config.epochs >= 1 and config.minutes == 0.02
    assert any(choice.key == "epochs" and "s a step" in choice.reason for choice in timed.setting.choices.made)
    for name, value in weights(given).items():
        assert torch.equal(weights(timed)[name], value), name
    assert all(parameter.grad is None for parameter in timed.module.parameters())
    assert timed.trainer.global_step == 0 and not (tmp_path / "a").exists()


def test_a_resume_has_the_epochs_that_were_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepared(tmp_path, "minutes=0.001")
    results = first.run()

    def fail(*_: Any) -> None:
        raise AssertionError("timed again")

    monkeypatch.setattr("mae.run.pretrain.time_steps", fail)
    second = prepared(tmp_path, "minutes=0.001", "resume=true")
    assert second.setting.config.epochs == first.setting.config.epochs == results["epochs"]
    with pytest.raises(ValueError, match="minutes=3"):
        prepared(tmp_path, "minutes=3", "resume=true")


def test_an_epoch_may_end_before_all_images_were_seen(tmp_path: Path) -> None:
    run = prepared(tmp_path, "epochs=3", "epoch_steps=4")
    results = run.run()
    assert (results["steps"], results["images_seen"]) == (12, 12 * 16)
    assert run.trainer.limit_val_batches == 1.0  # all of them


def test_epochs_and_minutes_are_not_both_taken(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"minutes=2 and epochs=3 both say .* epochs=null"):
        prepared(tmp_path, "minutes=2", "epochs=3")
