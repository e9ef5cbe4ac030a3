"""An optimizer and its schedule, from plain values."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from mae.optim.groups import LayerOf, parameter_groups
from mae.optim.lars import PairedLars, biases_of
from mae.optim.schedule import SCHEDULES, warmup_cosine, warmup_steps_down

OPTIMIZERS = ("adamw", "sgd", "lars")


def create_optimizer(
    module: nn.Module,
    *,
    name: str,
    lr: float,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.95),
    momentum: float = 0.9,
    layer_decay: float = 1.0,
    depth: int = 0,
    layer_of: LayerOf | None = None,
    head_rate: float = 1.0,
    fused: bool = False,
) -> Optimizer:
    """Return ``adamw``, ``sgd`` or ``lars`` over the trainable parameters of a module.

    Args:
        module: What is trained.
        name: The optimizer.
        lr: Peak learning rate of the last layer.
        weight_decay: Not applied to biases, norms and tokens.
        betas: Of AdamW; the paper pretrains with (0.9, 0.95) and fine-tunes with (0.9, 0.999).
        momentum: Of SGD and LARS.
        layer_decay: Factor on the learning rate from each layer to the one before it.
        depth: Number of the encoder's layers.
        layer_of: Gives the layer of a parameter of the encoder, see ``parameter_groups``.
        head_rate: Factor on the learning rate of what stands on the encoder.
        fused: One kernel for all parameters of AdamW, on a CPU or GPU.

    Raises:
        ValueError: The optimizer is unknown.
    """
    groups: list[dict[str, Any]] = parameter_groups(
        module, lr, weight_decay, layer_decay=layer_decay, depth=depth, layer_of=layer_of, head_rate=head_rate
    )
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=fused)
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum)
    if name == "lars":
        # timm adapts only what decays, unless told otherwise; MAE's probe adapts matrices at a weight decay of zero.
        for group in groups:
            group["always_adapt"] = group["decaying"]
        return PairedLars(groups, biases_of(module), lr=lr, momentum=momentum)
    raise ValueError(f"optim.name={name!r} is unknown: choose one of {', '.join(OPTIMIZERS)}")


def create_schedule(
    optimizer: Optimizer,
    warmup_steps: int,
    total_steps: int,
    final: float = 0.0,
    *,
    name: str = "cosine",
    every: int | None = None,
) -> LambdaLR:
    """Return a per-step schedule that scales each group's own learning rate.

    Args:
        optimizer: Its groups hold the peak rates.
        warmup_steps: Steps of linear warm-up.
        total_steps: Steps in all.
        final: Learning rate at the end of a cosine, as a share of the peak.
        name: ``cosine``, or ``steps``, which falls to a tenth again and again.
        every: Steps between these falls.

    Raises:
        ValueError: The schedule is unknown.
    """
    if name == "cosine":
        return LambdaLR(optimizer, warmup_cosine(warmup_steps, total_steps, final))
    if name == "steps":
        if not every:
            raise ValueError("optim.schedule=steps needs optim.step_epochs, a step long or longer")
        return LambdaLR(optimizer, warmup_steps_down(warmup_steps, every))
    raise ValueError(f"optim.schedule={name!r} is unknown: choose one of {', '.join(SCHEDULES)}")
