"""The protocols of the second stage: what each may change, what a resume repeats, and what a result stands beside."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor

import mae
from mae.data.loading.batches import Batch
from tests.downstream.test_downstream_run import state
from tests.runs import ENCODER, few_digits, job, shared_pretraining


@pytest.fixture
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a finished pretraining."""
    return shared_pretraining(tmp_path_factory)


def tensors(module: torch.nn.Module) -> dict[str, Tensor]:
    """Return a copy of every parameter and buffer, those too that a state dict leaves out."""
    return {key: value.detach().clone() for key, value in (*module.named_parameters(), *module.named_buffers())}


PROBES = {
    "linear": ("protocol=linear_probe", "optim.base_lr=80"),
    "linear, as it is": ("protocol=linear_probe", "optim.base_lr=80", "protocol.batch_norm=false"),
    "linear sweep": ("protocol=linear_probe", "optim.base_lr=80", "protocol.sweep=true", "protocol.sweep_factors=[1]"),
    "mlp": ("protocol=mlp_probe",),
    "attentive": ("protocol=attentive_probe",),
}


@pytest.mark.parametrize("overrides", PROBES.values(), ids=PROBES)
def test_a_probe_leaves_the_encoder_bit_identical(run: Path, tmp_path: Path, overrides: tuple[str, ...]) -> None:
    # A weight decay would move weights that no gradient reaches.
    few = (*few_digits(), "optim.weight_decay=0.1")
    prepared = job("finetune", tmp_path / "run", f"checkpoint={run}", *overrides, *few)
    encoder = prepared.module.model.encoder
    before, head = tensors(encoder), tensors(prepared.module.model.head)
    prepared.run()
    after = tensors(encoder)
    assert [key for key in before if not torch.equal(before[key], after[key])] == []
    pretrained = mae.load_encoder(run).state_dict()
    folder = tmp_path / "run"
    kept = {name: state(folder, name) for name in ("last", "best")}
    kept["encoder"] = {
        f"encoder.{key}": value for key, value in mae.load_encoder(folder / "encoder").state_dict().items()
    }
    for name, content in kept.items():
        encoders = {key.removeprefix("encoder."): value for key, value in content.items() if key.startswith("encoder.")}
        assert encoders.keys() == pretrained.keys(), name
        assert [key for key, value in pretrained.items() if not torch.equal(value, encoders[key])] == [], name
    for name in ("last", "best"):
        assert not [key for key in head if torch.equal(head[key], kept[name][f"head.{key}"])], name


@pytest.mark.parametrize(
    ("blocks", "learns"), [(1, ("blocks.1.", "norm.")), (0.5, ("blocks.1.norm2.", "blocks.1.mlp.", "norm."))]
)
def test_partial_finetuning_moves_the_last_blocks_alone(tmp_path: Path, blocks: float, learns: tuple[str, ...]) -> None:
    overrides = (*ENCODER, *few_digits(), "model.depth=2", "checkpoint=null", "protocol=partial_finetune")
    overrides += ("labels_per_class=4",)
    # An average of equal weights is not always equal to them, to the last bit.
    averaged = ("protocol.ema=0.7", "batch_size=8")
    prepared = job("finetune", tmp_path / "run", *overrides, f"protocol.blocks={blocks}", *averaged)
    vit = prepared.module.model.encoder.vit
    before = tensors(vit)
    prepared.run()
    learning = {key for key in before if key.startswith(learns)}
    assert {key for key, value in tensors(vit).items() if not torch.equal(before[key], value)} == learning
    for name in ("last", "best"):
        kept = state(tmp_path / "run", name)
        assert {key for key in before if not torch.equal(before[key], kept[f"encoder.vit.{key}"])} == learning, name


AUGMENTED = (
    *ENCODER,
    *few_digits(),
    "model.depth=2",  # of one block, the drop path is none
    "checkpoint=null",
    "labels_per_class=8",
    "batch_size=20",
    "epochs=4",
    "optim.base_lr=0.05",
    "protocol.mixup=0.8",
    "protocol.cutmix=1",
    "protocol.rand_augment=9",
    "protocol.erasing=0.5",
    "protocol.drop_path=0.3",
    "protocol.ema=0.8",
)


class PowerCut(L.Callback):
    """Fails at the end of the third epoch, before it is kept."""

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.current_epoch == 2:
            raise RuntimeError("power cut")


def last_checkpoint(folder: Path) -> dict[str, Any]:
    return dict(torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True))


@pytest.mark.parametrize("protocol", [pytest.param("finetune", marks=pytest.mark.slow), "partial_finetune"])
def test_a_resume_repeats_what_chance_drew_and_what_was_averaged(tmp_path: Path, protocol: str) -> None:
    overrides = (f"protocol={protocol}", *AUGMENTED)
    whole = job("finetune", tmp_path / "whole", *overrides).run()
    prepared = job("finetune", tmp_path / "parts", *overrides)
    prepared.trainer.callbacks.insert(0, PowerCut())
    with pytest.raises(RuntimeError, match="power cut"):
        prepared.run()
    assert last_checkpoint(tmp_path / "parts")["global_step"] == 8
    resumed = job("finetune", tmp_path / "parts", *overrides, "resume=true").run()
    a, b = (last_checkpoint(tmp_path / name) for name in ("whole", "parts"))
    assert a["global_step"] == b["global_step"] == 16
    for part in ("state_dict", "current_model_state", "averaging_state"):
        assert a[part].keys() == b[part].keys()
        assert [key for key, value in a[part].items() if not torch.equal(value, b[part][key])] == [], part
    assert int(a["averaging_state"]["n_averaged"]) == 16
    measured = {key for key in whole if key.startswith(("val_", "test_"))}
    assert {"val_loss", "test_log_loss"} < measured
    assert {key: resumed[key] for key in measured} == {key: whole[key] for key in measured}


class Recorder(L.Callback):
    """Keeps the weights after each step, and those that are validated at the end of each epoch."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor]] = []
        self.validated: list[dict[str, Tensor]] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *batch: Any) -> None:
        self.steps.append(tensors(pl_module.model))

    def on_validation_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking and batch_idx == 0:
            self.validated.append(tensors(pl_module.model))


def assert_close(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    for key, value in wanted.items():
        if value.is_floating_point():  # not the number of batches that a BatchNorm has seen
            torch.testing.assert_close(found[key], value, msg=key)


def test_the_average_of_the_weights_is_validated_tested_and_kept(run: Path, tmp_path: Path) -> None:
    overrides = ("protocol=finetune", f"checkpoint={run}", "batch_size=128", "epochs=3", "optim.base_lr=0.03")
    # At a rate that does not fall the weights still move in the end, and their average lags behind.
    prepared = job(
        "finetune", tmp_path / "run", *overrides, "optim.final_lr=1", "protocol.ema=0.8", "protocol.head_start=random"
    )
    recorder = Recorder()
    prepared.trainer.callbacks.insert(0, recorder)
    results = prepared.run()

    def averaged(before: Tensor, now: Tensor) -> Tensor:
        return 0.8 * before + 0.2 * now if now.is_floating_point() else now

    # By hand: the first step's weights, then 0.8 of the average and 0.2 of each later step's.
    averages = [recorder.steps[0]]
    for weights in recorder.steps[1:]:
        averages.append({key: averaged(averages[-1][key], value) for key, value in weights.items()})
    ends = averages[9::10]
    assert len(ends) == len(recorder.validated) == 3
    weight = recorder.steps[-1]["head.linear.weight"]
    assert (weight - ends[-1]["head.linear.weight"]).norm() > 0.05 * weight.norm()
    for validated, average in zip(recorder.validated, ends, strict=True):
        assert_close(validated, average)

    folder = tmp_path / "run"
    epoch = int(torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["epoch"])
    best = ends[epoch]
    assert_close(state(folder, "last"), ends[-1])
    assert_close(state(folder, "best"), best)
    kept = mae.load_encoder(folder / "encoder").state_dict()
    assert_close(
        {f"encoder.{key}": value for key, value in kept.items()}, {k: v for k, v in best.items() if k[:3] == "enc"}
    )

    prepared.module.model.load_state_dict(best)
    assert results["val_top1"] > 0.3
    for split, loader in (("val", prepared.data.val_dataloader()), ("test", prepared.data.test_dataloader())):
        logits, labels = predict(prepared.module, loader)
        assert results[f"{split}_top1"] == pytest.approx((logits.argmax(1) == labels).double().mean().item())
    assert results["test_log_loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), abs=1e-4)


@torch.no_grad()
def predict(module: Any, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
    """Return logits and labels, by hand."""
    module.model.eval()
    found = [(module.model((batch.images.float() / 255 - module.mean) / module.std), batch.labels) for batch in batches]
    return torch.cat([logits for logits, _ in found]), torch.cat([labels for _, labels in found])
