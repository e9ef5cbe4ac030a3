"""What each model of the family costs, counted without computing it, beside what its paper or its library says.

    python benchmarks/family.py        a minute on a CPU

Parameters in millions, multiply-adds in billions, of one image. What is said of them:
    ResNets             by the installed torchvision, of its weights of the same network
    VT-ResNets, VT-FPN  by Wu et al. 2020, arXiv 2006.03677, in their tables; of the necks, no parameters
    labml's, d2l.ai's   their code, of parameters
    ViTs over a CNN     by timm, in results/benchmark-infer-amp-nchw-pt113-cu117-rtx3090.csv of its repository
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import timm
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torchvision.models import get_model_weights

from mae.config.composing import compose
from mae.downstream.tasks.classifiers import build_classifier
from mae.models.backbones.convnet import ConvNet, feature_stages, map_grids
from mae.models.backbones.encoder import Encoder
from mae.models.backbones.vt_resnet import VTResNet
from mae.models.classifier import Classifier
from mae.models.cost import multiply_adds, parameters
from mae.models.heads import LinearHead
from mae.models.layers.pyramids import FPN, VTFPN

CLASSES = 1000
SIDE = 224


class Row(NamedTuple):
    """A model, what goes into it, and what others say that it costs: millions of parameters, billions of multiply-adds."""

    name: str
    module: nn.Module
    inputs: Tensor | Sequence[Tensor]
    parameters: float | None = None
    multiply_adds: float | None = None


def images(height: int = SIDE, width: int = SIDE, channels: int = 3) -> Tensor:
    return torch.empty(1, channels, height, width, device="meta")


def resnets() -> Iterator[Row]:
    for depth in (18, 34, 50, 101):
        backbone = ConvNet(f"resnet{depth}")
        said = get_model_weights(f"resnet{depth}").DEFAULT.meta
        model = Classifier(backbone, LinearHead(backbone.width, CLASSES))
        yield Row(f"resnet{depth}", model, images(), said["num_params"] / 1e6, said["_ops"])


def vt_resnets() -> Iterator[Row]:
    published = {18: (11.7, 1.569), 34: (19.2, 3.236), 50: (21.4, 3.412), 101: (41.5, 7.129)}
    for depth, said in published.items():
        backbone = VTResNet(f"vt_resnet{depth}")
        model = Classifier(backbone, LinearHead(backbone.width, CLASSES))
        yield Row(f"vt_resnet{depth}", model, images(), *said)


def hybrids() -> Iterator[Row]:
    published = {
        "vit_tiny_r_s16_p8_224": (6.34, 0.44),
        "vit_small_r26_s32_224": (36.43, 3.56),
        "vit_base_r26_s32_224": (101.38, 6.81),
    }
    for name, said in published.items():
        yield Row(name, timm.create_model(name), images(), *said)
    yield Row("vit_base_r50_s16_224", timm.create_model("vit_base_r50_s16_224"), images())


def vits() -> Iterator[Row]:
    # Of their source code, with a table of as many positions as there are tokens.
    for name, side, channels, said in (
        ("cifar10_vit_labml", 32, 3, 20.045322),
        ("fashion_mnist_vit_d2l", 96, 1, 6.457866),
    ):
        config = compose("finetune", [f"experiment={name}"])
        encoder = Encoder(image_size=side, in_channels=channels, **config.model.arguments)
        model = build_classifier(config.protocol, encoder, 10, seed=0)
        yield Row(
            f"{name.removeprefix('cifar10_').removeprefix('fashion_mnist_')}, {side} px",
            model,
            images(side, side, channels),
            said,
        )


def pyramids() -> Iterator[Row]:
    stages = feature_stages("resnet50", 3, 4)
    widths = stages.feature_info.channels()
    published = {(800, 1216): (55.1, 8.5), (473, 473): (12.8, 2.0)}
    for (height, width), (fpn, vt_fpn) in published.items():
        grids = map_grids("resnet50", stages, 3, (height, width))
        maps = [torch.empty(1, channels, *grid, device="meta") for channels, grid in zip(widths, grids, strict=True)]
        yield Row(f"FPN {height}x{width}", FPN(widths), maps, None, fpn)
        yield Row(f"VT-FPN {height}x{width}", VTFPN(widths, grids), maps, None, vt_fpn)


def main() -> None:
    table = Table(
        title="Millions of parameters, billions of multiply-adds, counted and said",
        caption=f"{SIDE}x{SIDE} pixels, {CLASSES} classes (labml, d2l.ai: 10). ResNets: torchvision. VT-ResNets, FPNs (the neck "
        f"alone, of a ResNet-50): arXiv 2006.03677. ViTs over a CNN: timm's tables",
    )
    for head in ("", "params", "said", "ratio", "mult-adds", "said", "ratio"):
        table.add_column(head, justify="right" if head else "left", no_wrap=True)
    with torch.device("meta"):
        for family in (resnets, vt_resnets, hybrids, vits, pyramids):
            for row in family():
                weights = parameters(row.module) / 1e6
                operations = multiply_adds(row.module, row.inputs) / 1e9
                table.add_row(row.name, *beside(weights, row.parameters, 2), *beside(operations, row.multiply_adds, 3))
            table.add_section()
    Console().print(table)


def beside(counted: float, said: float | None, digits: int) -> tuple[str, str, str]:
    reference, ratio = ("", "") if said is None else (f"{said:.{digits}f}", f"{counted / said:.3f}")
    return f"{counted:.{digits}f}", reference, ratio


if __name__ == "__main__":
    main()
