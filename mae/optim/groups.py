"""Parameter groups: what decays, and at which learning rate each layer learns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

LayerOf = Callable[[str], int]
ENCODER = "encoder."
NO_DECAY_TOKENS = (
    *("cls_token", "reg_token", "mask_token", "latent"),
    *("pos_embed", "pos_embed_win", "relative_position_bias_table", "freqs"),
)


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay applies: not to biases, norms, scales and frequencies, nor to class, mask, query and position tokens."""
    return parameter.ndim > 1 and name.rpartition(".")[2] not in NO_DECAY_TOKENS


def parameter_groups(
    module: nn.Module,
    lr: float,
    weight_decay: float,
    *,
    layer_decay: float = 1.0,
    depth: int = 0,
    layer_of: LayerOf | None = None,
    head_rate: float = 1.0,
) -> list[dict[str, Any]]:
    """Group the trainable parameters for an optimizer.

    With layer-wise decay (Clark et al. 2020, as in BEiT and MAE) layer i of ``depth + 1`` gets
    lr * layer_decay ** (depth + 1 - i) as its own ``lr``, which a scheduler scales: not only stored beside it.

    Args:
        module: Frozen parameters are left out.
        lr: The learning rate of the last layer.
        weight_decay: For the parameters that decay.
        layer_decay: 1 gives every layer the same rate.
        depth: Number of the encoder's layers.
        layer_of: Gives the layer of a parameter of ``module.encoder`` by its name there: 0 embeddings, 1 to depth the layers,
            depth + 1 what follows them, as all else does. Needed with layer-wise decay.
        head_rate: Factor on the learning rate of what is not ``module.encoder``, which then has groups of its own.

    Returns:
        Groups with ``name``, ``params``, ``lr``, ``weight_decay`` and whether they are ``decaying`` (matrices, whatever the
        weight decay), from the input to the head.
    """
    groups: dict[tuple[int, bool, bool], dict[str, Any]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        layer = depth + 1
        if layer_of is not None and layer_decay != 1.0 and name.startswith(ENCODER):
            layer = layer_of(name.removeprefix(ENCODER))
        decay = decays(name, parameter)
        own = head_rate != 1 and not name.startswith(ENCODER)
        group = groups.setdefault(
            (layer, own, decay),
            {
                "name": f"{'head' if own else f'layer {layer}'}{'' if decay else ', no decay'}",
                "params": [],
                "lr": lr * head_rate if own else lr * layer_decay ** (depth + 1 - layer),
                "weight_decay": weight_decay if decay else 0.0,
                "decaying": decay,
            },
        )
        group["params"].append(parameter)
    return [groups[key] for key in sorted(groups)]
