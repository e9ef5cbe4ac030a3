"""The last epoch is validated, whatever the number of epochs."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import pytest
import torch

from mae.training.loggers import read_metrics
from tests.runs import BARE, few_digits, job

LENGTH = (*BARE, *few_digits(), "epochs=3", "trainer.validate_every=2")


class Stop(L.Callback):
    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        if trainer.global_step == 25:
            raise KeyboardInterrupt


@pytest.mark.parametrize("stopped", [False, True])
def test_the_last_epoch_is_validated_though_the_pace_does_not_divide(tmp_path: Path, stopped: bool) -> None:
    prepared = job("pretrain", tmp_path, *LENGTH, "trainer.save_minutes=0")
    if stopped:  # within the last epoch, which then has no start when it goes on
        prepared.trainer.callbacks.append(Stop())
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            prepared.fit()
        prepared = job("pretrain", tmp_path, *LENGTH, "resume=true")
    prepared.fit()
    losses = read_metrics(tmp_path / "metrics.csv")["val_loss"]
    assert [step for step, _ in losses] == [19, 29]
    best = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["global_step"] == {19: 20, 29: 30}[min(losses, key=lambda pair: pair[1])[0]]
