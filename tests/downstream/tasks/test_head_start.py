"""How the head of a fine-tuning begins: as the probe that its features deserve, in the very run that goes on from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from mae.downstream import downstream_run
from mae.downstream.between import SHARES, mixed
from mae.downstream.labelled_data import extract_split
from mae.downstream.tasks.head_start import as_classifier
from mae.evaluation.frozen.logistic import LogisticFit, fit_logistic
from mae.models.heads import LinearHead, keep_statistics
from mae.training.callbacks.checkpointing import StoppedError
from tests.run.test_stopping import Record, assert_same
from tests.runs import few_digits, job, shared_pretraining

SHORT = (*few_digits(), "protocol=finetune", "epochs=2", "baselines=false")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a finished pretraining."""
    return shared_pretraining(tmp_path_factory)


@pytest.mark.parametrize("norm", ["batch", "fixed", "none"])
@pytest.mark.parametrize("pool", ["mean", "token"])
def test_a_solved_head_is_the_logistic_regression_on_the_features_it_will_be_given(
    run: Path, tmp_path: Path, norm: str, pool: str
) -> None:
    given = (f"checkpoint={run}", "protocol.head_start=solved", f"protocol.head_norm={norm}", f"protocol.pool={pool}")
    prepared = job("finetune", tmp_path / "run", *SHORT, *given)
    module, data = prepared.module.eval(), prepared.data
    train, val = (
        extract_split(prepared.setting, data, prepared.trainer, source, module.model.features)
        for source in (data.splits.train, data.splits.val)
    )
    fit = fit_logistic(train, val, 10)

    prepared.task.begin(prepared.setting, prepared.trainer, module.train(), data)

    assert module.training
    head = module.model.head.eval()
    torch.testing.assert_close(head(val[0]), fit.predict(val[0]), rtol=1e-3, atol=1e-3)
    if norm == "fixed":
        module.model.train()
        assert not head.norm.training  # and so do its statistics stay
        torch.testing.assert_close(head.norm(train[0]).mean(dim=0), torch.zeros(train[0].shape[1]), atol=1e-3, rtol=0)


def test_a_class_without_an_image_begins_low_and_within_reach() -> None:
    torch.manual_seed(0)
    features, labels = torch.randn(60, 4), torch.arange(60) % 2
    features[:, 0] += 4 * labels
    fit = fit_logistic((features, labels), (features, labels), 3)
    assert fit.bias[2] == -torch.inf
    weight, bias = as_classifier(fit, 60)
    assert bias.isfinite().all() and weight.isfinite().all()
    head = LinearHead(4, 3)
    head.take(weight, bias)
    torch.testing.assert_close(head(features)[:, :2], fit.predict(features)[:, :2], rtol=1e-4, atol=1e-4)
    assert not (head(features).argmax(dim=1) == 2).any()


def test_features_far_from_zero_and_features_that_do_not_vary_lose_nothing() -> None:
    torch.manual_seed(0)
    features = torch.randn(50, 4) * torch.tensor([1.0, 1e-2, 1e2, 0.0]) + torch.tensor([0.0, 30.0, -1e3, 7.0])
    std, mean = torch.std_mean(features, dim=0, correction=0)
    fit = LogisticFit(1.0, 1.0, True, mean, std.where(std > 0, 1.0), torch.randn(3, 4), torch.randn(3))
    for batch_norm in (True, False):
        head = LinearHead(4, 3, batch_norm=batch_norm).eval()
        if batch_norm:
            keep_statistics(head.norm, features)
        head.take(*as_classifier(fit, 50))
        torch.testing.assert_close(head(features), fit.predict(features), rtol=1e-2, atol=1e-2)


class FirstLoss(L.Callback):
    """Keeps the loss of the first step."""

    loss: float | None = None

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.loss is None:
            self.loss = float(outputs["loss"])


def first_loss(folder: Path, *overrides: str) -> float:
    prepared, watch = job("finetune", folder, *SHORT, "epochs=1", *overrides), FirstLoss()
    prepared.trainer.callbacks.append(watch)
    prepared.run()
    assert watch.loss is not None
    return watch.loss


@pytest.mark.parametrize("overrides", [(), ("protocol.ema=0.9",)])
def test_a_run_takes_its_first_step_with_the_solved_head(run: Path, tmp_path: Path, overrides: tuple[str, ...]) -> None:
    common = (f"checkpoint={run}", "protocol.label_smoothing=0", "data.min_scale=1", *overrides)
    assert first_loss(tmp_path / "random", *common, "protocol.head_start=random") > 2.2  # ln 10
    assert first_loss(tmp_path / "solved", *common, "protocol.head_start=solved") < 1.5


def test_a_stopped_run_goes_on_with_its_own_head_and_is_scored_with_its_norm(run: Path, tmp_path: Path) -> None:
    given = (*SHORT, f"checkpoint={run}", "protocol.head_start=solved", "protocol.head_norm=batch")
    whole = job("finetune", tmp_path / "whole", *given)
    results = whole.run()
    parts = job("finetune", tmp_path / "parts", *given)
    parts.trainer.callbacks.insert(0, Record(3))
    with pytest.raises(StoppedError):
        parts.run()
    job("finetune", tmp_path / "parts", "resume=true", "epochs=2").run()
    assert_same(tmp_path / "whole", tmp_path / "parts")
    again = job("finetune", tmp_path / "again", "evaluate_only=true", f"checkpoint={tmp_path / 'whole'}").run()
    assert again["test_top1"] == results["test_top1"]
    assert again["test_log_loss"] == pytest.approx(results["test_log_loss"], rel=1e-5)


def test_a_head_of_two_layers_is_not_solved_for(run: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"protocol\.head_start=solved solves for one linear layer, and protocol\.head=mlp"
    ):
        job(
            "finetune", tmp_path / "run", *SHORT, f"checkpoint={run}", "protocol.head=mlp", "protocol.head_start=solved"
        )


def test_a_start_that_no_epoch_improves_on_is_what_is_scored(run: Path, tmp_path: Path) -> None:
    ruinous = (f"checkpoint={run}", "protocol.head_start=solved", "optim.base_lr=5", "optim.warmup_epochs=0")
    prepared = job("finetune", tmp_path / "run", *SHORT, *ruinous)
    results = prepared.run()
    assert results["start_share"] == 1
    assert "a linear probe, which is therefore what was scored" in (tmp_path / "run" / "report.html").read_text(
        encoding="utf-8"
    )
    assert results["val_top1"] > 0.3  # that of the solved head: chance is 0.1, and such steps leave little more
    checkpoints = tmp_path / "run" / "checkpoints"
    last, best = (torch.load(checkpoints / name, weights_only=True) for name in ("last.ckpt", "best.ckpt"))
    assert (best["global_step"], best["epoch"]) == (0, 0)
    assert last["global_step"] > 0
    assert not (checkpoints / "start.ckpt").exists()


def test_weights_between_the_start_and_the_best_epoch_are_scored_where_validation_says_so(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[float, dict[str, torch.Tensor]] = {}

    def watch(start: dict[str, torch.Tensor], best: dict[str, torch.Tensor], share: float) -> dict[str, torch.Tensor]:
        seen[share] = mixed(start, best, share)
        return seen[share]

    monkeypatch.setattr(downstream_run, "mixed", watch)
    monkeypatch.setattr(downstream_run, "nearest", lambda right: SHARES.index(0.75))
    prepared = job("finetune", tmp_path / "run", *SHORT, f"checkpoint={run}", "protocol.head_start=solved")
    results = prepared.run()
    assert results["start_share"] == 0.25
    best = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    weight = "model.encoder.vit.blocks.0.attn.qkv.weight"
    assert torch.equal(best["state_dict"][weight], seen[0.75][weight])
    assert torch.allclose(best["state_dict"][weight], seen[0][weight].lerp(seen[1][weight], 0.75))
    assert not torch.equal(seen[0][weight], seen[1][weight])
    assert best["global_step"] > 0
    assert "The weights are 25% those that training began with" in (tmp_path / "run" / "report.html").read_text("utf-8")
    again = job("finetune", tmp_path / "again", "evaluate_only=true", f"checkpoint={tmp_path / 'run'}").run()
    assert again["test_top1"] == results["test_top1"]
