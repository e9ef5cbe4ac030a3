"""What a run asks of the device: numbers, kernels, memory. Every choice of this kind stands here."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

from mae.models.cost import parameters

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
"""Those that work: parameters, their averages and the loss stay in float32."""

REPLICATING = re.compile(r"auto|ddp(_spawn|_fork|_notebook)?(_find_unused_parameters_(true|false))?")
"""Strategies that keep whole parameters on each device."""


def has_accelerator(accelerator: str) -> bool:
    """Whether ``trainer.accelerator`` means something faster than a CPU on this machine."""
    if accelerator == "auto":
        return torch.accelerator.is_available()
    return accelerator != "cpu"


def chosen_precision(precision: str, accelerated: bool) -> str:
    """Resolve ``auto``: bf16-mixed where the device computes it, else 32-true.

    Raises:
        ValueError: Another precision is none that works, here.
    """
    if precision == "auto":
        # Cards before sm_80 only emulate bf16, slower than they compute float32.
        has_bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16-mixed" if accelerated and has_bf16 else "32-true"
    if precision not in PRECISIONS:
        raise ValueError(
            f"trainer.precision={precision} does not work here, where parameters stay in float32: choose one of auto, "
            f"{', '.join(PRECISIONS)}"
        )
    if precision == "16-mixed" and not accelerated:
        raise ValueError("trainer.precision=16-mixed is for GPUs: on a CPU bf16-mixed or 32-true works")
    return precision


def check_strategy(strategy: str) -> None:
    """Refuse what shards parameters.

    Raises:
        ValueError: Flat shards are one-dimensional, so that none would have weight decay, and a checkpoint would hold one of them.
    """
    if not REPLICATING.fullmatch(strategy):
        raise ValueError(
            f"trainer.strategy={strategy} is not known to keep whole parameters on each device, which weight decay and "
            f"checkpoints need: trainer.strategy=ddp does"
        )


def keep_float32_whole() -> None:
    """Compute float32 products in float32, on every card alike.

    TF32 would keep 10 bits of 23. Under mixed precision nothing that takes long is left in float32, what is measured beside
    (kNN, probes) shall not depend on the card, and who asks for 32-true means it.
    """
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False


def prepare_model(
    model: nn.Module, *, accelerator: str = "cpu", compile: bool = False, grad_checkpointing: bool = False
) -> None:
    """Make a model fast, or small, in place; what it computes stays the same but for rounding, and on a CPU to the last bit.

    Call it when the model has all its parts, and before the optimizer is made.

    Args:
        model: A masked model, or one that has an ``encoder``.
        accelerator: ``trainer.accelerator``: kernels of GPUs are chosen where there is one.
        compile: By torch.compile, at the first step.
        grad_checkpointing: Compute blocks again on the way back.

    Raises:
        ValueError: The encoder has no blocks to compute again.
    """
    if grad_checkpointing:
        able: Any = model if hasattr(model, "set_grad_checkpointing") else model.encoder
        able.set_grad_checkpointing()
    if has_accelerator(accelerator) and torch.cuda.is_available():
        convolutional = is_convolutional(model)
        # Image sizes are fixed, so that the fastest kernels are sought once. A ViT has one convolution, which is not worth it.
        torch.backends.cudnn.benchmark = convolutional
        if convolutional:  # the layout that tensor cores take without copying
            model.to(memory_format=torch.channels_last)
    if compile:
        model.compile()


def is_convolutional(model: nn.Module) -> bool:
    """Whether most of the parameters are those of two-dimensional convolutions; a ViT embeds patches by one, which is few."""
    convolved = sum(parameters(layer) for layer in model.modules() if isinstance(layer, nn.Conv2d))
    return 2 * convolved > parameters(model)
