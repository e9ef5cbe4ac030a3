"""What a run asks of the device, without one: answers of CUDA are put in its mouth."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import mae
from mae.models.backbones.convnet import ConvNet
from mae.models.backbones.encoder import Encoder
from mae.models.classifier import Classifier
from mae.models.heads import LinearHead
from mae.training.devices import (
    PRECISIONS,
    check_strategy,
    chosen_precision,
    has_accelerator,
    is_convolutional,
    keep_float32_whole,
    prepare_model,
)
from tests.runs import REPOSITORY


def pretend_cuda(monkeypatch: pytest.MonkeyPatch, *, computes_bf16: bool) -> None:
    """A card that takes bf16, and computes or emulates it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or computes_bf16
    )


def test_a_cpu_is_no_accelerator() -> None:
    assert not has_accelerator("cpu")
    assert has_accelerator("cuda")
    assert has_accelerator("auto") is torch.accelerator.is_available()


@pytest.mark.parametrize(("computes", "precision"), [(True, "bf16-mixed"), (False, "32-true")])
def test_auto_takes_bf16_where_the_card_computes_it_and_not_where_it_emulates(
    monkeypatch: pytest.MonkeyPatch, computes: bool, precision: str
) -> None:
    pretend_cuda(monkeypatch, computes_bf16=computes)
    assert chosen_precision("auto", accelerated=True) == precision
    assert chosen_precision("auto", accelerated=False) == "32-true"


def test_precisions_that_work_are_kept_and_others_refused_in_one_line() -> None:
    assert [chosen_precision(name, accelerated=True) for name in PRECISIONS] == list(PRECISIONS)
    assert chosen_precision("bf16-mixed", accelerated=False) == "bf16-mixed"
    for name in ("bf16-true", "16-true", "64-true", "32", "transformer-engine", "half"):
        with pytest.raises(ValueError, match=f"trainer.precision={name} does not work here.* bf16-mixed, 16-mixed$"):
            chosen_precision(name, accelerated=True)
    with pytest.raises(ValueError, match=r"trainer\.precision=16-mixed is for GPUs"):
        chosen_precision("16-mixed", accelerated=False)


def test_strategies_that_keep_whole_parameters_are_taken_and_others_refused() -> None:
    for name in ("auto", "ddp", "ddp_spawn", "ddp_find_unused_parameters_true", "ddp_notebook"):
        check_strategy(name)
    for name in ("fsdp", "fsdp_cpu_offload", "deepspeed_stage_2", "deepspeed", "model_parallel", "xla", "ddpp"):
        with pytest.raises(ValueError, match=rf"trainer\.strategy={name} .*: trainer\.strategy=ddp does$"):
            check_strategy(name)


def convolutional() -> Classifier:
    encoder = ConvNet("resnet18", 32, 3)
    return Classifier(encoder, LinearHead(encoder.width, 4))


def formats(model: torch.nn.Module) -> set[bool]:
    """Whether kernels are stored with channels last."""
    return {
        layer.weight.is_contiguous(memory_format=torch.channels_last) and not layer.weight.is_contiguous()
        for layer in model.modules()
        if isinstance(layer, torch.nn.Conv2d) and layer.kernel_size[0] > 1 and layer.in_channels > 1
    }


def test_kernels_are_chosen_for_convolutional_networks_on_a_gpu_alone(
    monkeypatch: pytest.MonkeyPatch, tiny_autoencoder: Callable[..., mae.MaskedAutoencoder]
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    network, vit = convolutional(), tiny_autoencoder(in_channels=3)
    assert is_convolutional(network)
    assert not is_convolutional(vit)
    prepare_model(network, accelerator="cpu")
    assert formats(network) == {False}
    pretend_cuda(monkeypatch, computes_bf16=True)
    prepare_model(network, accelerator="gpu")
    assert formats(network) == {True}
    assert torch.backends.cudnn.benchmark
    prepare_model(vit, accelerator="gpu")
    assert formats(vit) == {False}
    assert not torch.backends.cudnn.benchmark


def test_blocks_are_computed_again_and_the_model_compiled_where_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled: list[str] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(type(self).__name__))
    model = Classifier(
        Encoder("vit_tiny_patch16_224", 16, 1, patch_size=4, width=32, depth=1, heads=2), LinearHead(32, 4)
    )
    prepare_model(model)
    assert not model.encoder.vit.grad_checkpointing
    assert compiled == []
    prepare_model(model, grad_checkpointing=True, compile=True)
    assert model.encoder.vit.grad_checkpointing
    assert compiled == ["Classifier"]
    with pytest.raises(ValueError, match=r"trainer\.grad_checkpointing=true is for ViTs, not for resnet18"):
        prepare_model(convolutional(), grad_checkpointing=True)


def test_float32_is_float32_on_every_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    torch.set_float32_matmul_precision("high")
    keep_float32_whole()
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.backends.cudnn.allow_tf32


@given(st.sampled_from(["", "ACTIVE"]))
def test_idle_threads_sleep_unless_the_environment_says_otherwise(given_policy: str) -> None:
    from mae.training.threads import calm_idle_threads

    with pytest.MonkeyPatch.context() as patch:
        for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
            patch.delenv(name, raising=False)
        if given_policy:
            patch.setenv("OMP_WAIT_POLICY", given_policy)
        calm_idle_threads()
        assert os.environ["OMP_WAIT_POLICY"] == (given_policy or "PASSIVE")
        assert os.environ["GOMP_SPINCOUNT"] == "5000"
        del os.environ["GOMP_SPINCOUNT"]


SPY = """
import os, sys
class Spy:
    def find_spec(self, name, path=None, target=None):
        if name == "torch" and "OMP_WAIT_POLICY" not in os.environ:
            sys.exit("torch is loaded first")
sys.meta_path.insert(0, Spy())
import runpy
runpy.run_path(sys.argv[1], run_name="imported")
"""


@pytest.mark.slow
@pytest.mark.parametrize("entry", ["train_pretrain.py", "train_finetune.py", "mae/cli/app.py"])
def test_entry_points_set_threads_before_torch_is_loaded(entry: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    done = subprocess.run(
        [sys.executable, "-c", SPY, str(REPOSITORY / entry)],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-500:]
