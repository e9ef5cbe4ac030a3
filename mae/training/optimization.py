"""Optimizer and schedule as both stages hand them to Lightning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mae.optim.build import create_optimizer, create_schedule
from mae.optim.groups import LayerOf


@dataclass(frozen=True)
class Optimization:
    """How the parameters move.

    Attributes:
        name: adamw, sgd or lars.
        lr: Peak learning rate of the encoder's last layer: base_lr * effective batch / 256.
        weight_decay: Not on biases, norms and tokens.
        betas: Of AdamW.
        momentum: Of SGD and LARS.
        layer_decay: Factor on the learning rate from each layer to the one before it.
        depth: Number of encoder blocks.
        warmup_steps: Steps of linear warm-up.
        total_steps: Steps in all.
        final_lr: Learning rate at the end, as a share of the peak.
        schedule: cosine, or steps.
        fall_every: Steps after which the learning rate falls to a tenth, with steps.
        layer_of: Gives the layer of a parameter of the encoder by its name, for layer-wise decay.
        head_rate: Factor on the learning rate of what stands on the encoder.
        fused: Update all parameters in one kernel, where AdamW has one for their device.
    """

    name: str
    lr: float
    weight_decay: float
    betas: tuple[float, float]
    momentum: float
    layer_decay: float
    depth: int
    warmup_steps: int
    total_steps: int
    final_lr: float = 0.0
    schedule: str = "cosine"
    fall_every: int | None = None
    fused: bool = True
    layer_of: LayerOf | None = None
    head_rate: float = 1.0

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return the optimizer over what is trainable."""
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return create_optimizer(
            model,
            name=self.name,
            lr=self.lr,
            weight_decay=self.weight_decay,
            betas=self.betas,
            momentum=self.momentum,
            layer_decay=self.layer_decay,
            depth=self.depth,
            layer_of=self.layer_of,
            head_rate=self.head_rate,
            fused=self.fused and bool(parameters) and parameters[0].device.type in ("cpu", "cuda"),
        )

    def configure(self, model: nn.Module) -> dict[str, Any]:
        """Return what ``configure_optimizers`` returns."""
        optimizer = self.optimizer(model)
        schedule = create_schedule(
            optimizer, self.warmup_steps, self.total_steps, self.final_lr, name=self.schedule, every=self.fall_every
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def last_layer_lr(self, optimizer: Any) -> torch.Tensor:
        """Return the learning rate now in force at the last layer, a head's own factor left out.

        On the CPU: logging a number would wait for the GPU.
        """
        return torch.tensor(optimizer.param_groups[-1]["lr"] / self.head_rate)
