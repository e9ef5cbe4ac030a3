"""What a run of each protocol moves, and the learning rate of every parameter as its optimizer has it when it steps."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from mae.optim.lars import PairedLars
from tests.runs import ENCODER, few_digits, job

# 160 images in batches of 32: five steps an epoch and ten in all, the first two of them warm-up.
FASTER = 10
BATCH, BASE_LR, WARMUP, STEPS, FINAL = 32, 0.02, 2, 10, 0.1
SHORT = (
    *(*ENCODER, *few_digits(), "model.depth=2", "checkpoint=null", "baselines=false", "epochs=2"),
    *(f"batch_size={BATCH}", f"optim.base_lr={BASE_LR}", "optim.warmup_epochs=0.4", f"optim.final_lr={FINAL}"),
)
PLAIN = ("protocol.head_norm=none", "protocol.head_rate=1")
DECAY = "protocol.layer_decay=0.75"
HEAD = {"head.linear.weight", "head.linear.bias"}
NORM = {"encoder.vit.norm.weight", "encoder.vit.norm.bias"}


def weights_and_biases(place: str, *names: str) -> set[str]:
    return {f"{place}.{name}.{kind}" for name in names for kind in ("weight", "bias")}


def attention(block: int) -> set[str]:
    return weights_and_biases(f"encoder.vit.blocks.{block}", "norm1", "attn.qkv", "attn.proj")


def mlp(block: int) -> set[str]:
    return weights_and_biases(f"encoder.vit.blocks.{block}", "norm2", "mlp.fc1", "mlp.fc2")


ATTENTIVE = weights_and_biases("head.pool", "q", "kv", "proj", "norm", "mlp.fc1", "mlp.fc2") | {"head.pool.latent"}
EMBEDDINGS = weights_and_biases("encoder.vit.patch_embed", "proj") | {"encoder.vit.cls_token", "encoder.vit.pos_embed"}
ALL = EMBEDDINGS | attention(0) | mlp(0) | attention(1) | mlp(1) | NORM | HEAD

# The overrides, the decay from layer to layer, and what learns.
PROTOCOLS: dict[str, tuple[tuple[str, ...], float, set[str]]] = {
    "linear_probe": (("protocol=linear_probe",), 1, HEAD),
    "mlp_probe": (("protocol=mlp_probe",), 1, HEAD | weights_and_biases("head", "hidden")),
    "attentive_probe": (
        ("protocol=attentive_probe",),
        1,
        ATTENTIVE | weights_and_biases("head.head", "linear"),
    ),
    "half a block": (("protocol=partial_finetune", "protocol.blocks=0.5", DECAY, *PLAIN), 0.75, mlp(1) | NORM | HEAD),
    "the last block": (("protocol=partial_finetune", DECAY, *PLAIN), 0.75, attention(1) | mlp(1) | NORM | HEAD),
    "finetune": (("protocol=finetune", DECAY, *PLAIN), 0.75, ALL),
    "finetune at another decay": (("protocol=finetune", "protocol.layer_decay=0.5", *PLAIN), 0.5, ALL),
    "finetune with a faster head": (
        ("protocol=finetune", DECAY, *PLAIN[:1], f"protocol.head_rate={FASTER}"),
        0.75,
        ALL,
    ),
    "finetune in two shares": (("protocol=finetune", "trainer.accumulate=2", DECAY, *PLAIN), 0.75, ALL),
}


def layer(name: str) -> int:
    """0 for the embeddings, 1 and 2 for the blocks, 3 for what follows them."""
    if ".blocks." in name:
        return int(name.split(".blocks.")[1][0]) + 1
    return 0 if any(part in name for part in ("patch_embed", "cls_token", "pos_embed")) else 3


def factor(step: int) -> float:
    """The closed formula: a rise to 1 in two steps, then half a cosine to a tenth over eight."""
    if step < WARMUP:
        return (step + 1) / WARMUP
    return FINAL + (1 - FINAL) * (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP))) / 2


class Watch(L.Callback):
    """Keeps the rate that each parameter has at each step."""

    def __init__(self) -> None:
        self.rates: list[dict[str, float]] = []

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: Any, optimizer: torch.optim.Optimizer) -> None:
        names = {id(parameter): name for name, parameter in pl_module.model.named_parameters()}
        self.rates.append({names[id(p)]: group["lr"] for group in optimizer.param_groups for p in group["params"]})


@pytest.mark.parametrize(("overrides", "decay", "learns"), PROTOCOLS.values(), ids=PROTOCOLS)
def test_every_parameter_learns_at_the_rate_of_the_formula(
    tmp_path: Path, overrides: tuple[str, ...], decay: float, learns: set[str]
) -> None:
    prepared, watch = job("finetune", tmp_path / "run", *SHORT, *overrides), Watch()
    prepared.trainer.callbacks.append(watch)

    prepared.trainer.fit(prepared.module, datamodule=prepared.data)

    assert len(watch.rates) == STEPS
    faster = {name: FASTER if name in HEAD and f"protocol.head_rate={FASTER}" in overrides else 1 for name in learns}
    for step, rates in enumerate(watch.rates):
        peaks = {name: BASE_LR * BATCH / 256 * decay ** (3 - layer(name)) * faster[name] for name in learns}
        expected = {name: peak * factor(step) for name, peak in peaks.items()}
        assert rates == pytest.approx(expected, rel=1e-9), step


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("protocol", ["half a block", "the last block"])
def test_a_run_moves_what_learns_and_leaves_the_rest_bit_for_bit(tmp_path: Path, protocol: str, averaged: bool) -> None:
    overrides, _, learns = PROTOCOLS[protocol]
    ema = ("protocol.ema=0.9",) if averaged else ()
    prepared = job("finetune", tmp_path / "run", *SHORT, *overrides, *ema)
    before = {key: value.clone() for key, value in prepared.module.model.state_dict().items()}

    prepared.trainer.fit(prepared.module, datamodule=prepared.data)

    after = prepared.module.model.state_dict()
    assert {key for key, value in before.items() if not torch.equal(value, after[key])} == learns


def settled(folder: Path, *overrides: str) -> dict[str, dict[str, Any]]:
    """The options of the group that each parameter is in, and the kind of the optimizer."""
    module = job("finetune", folder / "run", *SHORT, *overrides).module
    optimizer = module.optimization.optimizer(module.model)
    names = {id(parameter): name for name, parameter in module.model.named_parameters()}
    return {
        names[id(p)]: {**group, "kind": type(optimizer)} for group in optimizer.param_groups for p in group["params"]
    }


def test_a_linear_probe_learns_by_lars_with_momentum_and_no_weight_decay(tmp_path: Path) -> None:
    groups = settled(tmp_path)
    assert set(groups) == HEAD
    for options in groups.values():
        assert options["kind"] is PairedLars
        assert (options["momentum"], options["weight_decay"], options["nesterov"]) == (0.9, 0.0, False)


@pytest.mark.parametrize(
    ("protocol", "decay"),
    [("mlp_probe", 0.0), ("attentive_probe", 0.0), ("partial_finetune", 0.05), ("finetune", 0.05)],
)
def test_all_others_learn_by_adamw_as_the_paper_fine_tunes(tmp_path: Path, protocol: str, decay: float) -> None:
    for name, options in settled(tmp_path, f"protocol={protocol}").items():
        matrix = name.endswith(".weight") and "norm" not in name
        assert options["kind"] is torch.optim.AdamW
        assert options["betas"] == (0.9, 0.999)
        assert options["weight_decay"] == (decay if matrix else 0.0), name
