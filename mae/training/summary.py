"""The start-up summary: what is about to happen, so that a silent no-op is caught before an hour is lost."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from timm.layers import DropPath
from torch import nn

from mae.models.backbones.backbone import Backbone
from mae.models.cost import count, parameters
from mae.training.optimization import Optimization

Rows = list[tuple[str, str]]


def model_rows(encoder: Backbone, model: nn.Module) -> Rows:
    """Return rows on the model: sizes, what is trainable, drop path."""
    return [
        ("encoder", encoder.describe()),
        ("parameters", f"{parameters(model):,}, of which {parameters(model, learning=True):,} are trained"),
        ("drop path", _drop_path(encoder)),
    ]


def _drop_path(encoder: Backbone) -> str:
    rates = [layer.drop_prob for layer in encoder.modules() if isinstance(layer, DropPath) and layer.drop_prob]
    if not rates:
        return "off"
    frozen = not any(parameter.requires_grad for parameter in encoder.parameters())
    return f"rising from 0 to {max(rates):.3g} at the last layer" + (" (frozen: not in force)" if frozen else "")


def optimization_rows(
    optimization: Optimization, model: nn.Module, base_lr: float, batch_size: int, micro: int
) -> Rows:
    """Return rows on the optimizer: learning rates as its groups really hold them, weight decay and steps."""
    groups = optimization.optimizer(model).param_groups
    layers = {group["name"].partition(",")[0]: group["lr"] for group in groups}
    per_layer = f"{optimization.lr:.3g} = base_lr {base_lr:g} x {batch_size} / 256"
    if len(set(layers.values())) > 1:
        per_layer += "; " + ", ".join(f"{name} {rate:.2g}" for name, rate in layers.items())
    decayed = sum(count(group["params"]) for group in groups if group["weight_decay"])
    rows = [
        ("optimizer", f"{optimization.name}, weight decay {optimization.weight_decay:g} on {decayed:,} parameters"),
        ("learning rate", per_layer),
        ("batch", f"{batch_size} images a step, {micro} a device and pass"),
        (
            "steps",
            f"{optimization.total_steps:,}, of which {optimization.warmup_steps:,} warm up",
        ),
    ]
    if optimization.warmup_steps >= optimization.total_steps:
        rows.append(("warning", "warm-up is longer than the run: the learning rate never reaches its peak"))
    return rows


def show_summary(console: Console, title: str, rows: Rows, choices: Sequence[object]) -> None:
    """Print the summary: what will run, and which values were chosen, each with its reason."""
    table = Table(title=title, title_justify="left", title_style="bold", show_header=False, box=None, pad_edge=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value, style="bold red" if name == "warning" else None)
    for number, choice in enumerate(choices):
        table.add_row("chosen" if number == 0 else "", str(choice), style="dim")
    console.print(table, highlight=False)
