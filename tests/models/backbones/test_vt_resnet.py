from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import nn

from mae.models.backbones.vt_resnet import VT_RESNETS, VTResNet
from mae.models.classifier import Classifier
from mae.models.cost import multiply_adds, parameters
from mae.models.heads import LinearHead
from mae.models.segmenter import Segmenter

NARROW = {"channels": [8, 16, 32, 64]}


def small(name: str = "vt_resnet18", size: int = 32, **changes: object) -> VTResNet:
    return VTResNet(name, size, **{"stem": "small", "tokens": 8, "token_width": 64, "options": NARROW, **changes})


@pytest.mark.parametrize(
    ("name", "millions", "mega"),
    # Counted once by hand from the equations; the multiply-adds of VT-R34 are the paper's own.
    [
        ("vt_resnet18", 10.3, 1549),
        ("vt_resnet34", 19.9, 3236),
        ("vt_resnet50", 21.8, 3529),
        ("vt_resnet101", 40.8, 7242),
    ],
)
def test_costs_are_those_of_the_design(name: str, millions: float, mega: float) -> None:
    with torch.device("meta"):
        model = Classifier(VTResNet(name), LinearHead(1024, 1000))
    assert parameters(model) / 1e6 == pytest.approx(millions, rel=0.01)
    assert multiply_adds(model, torch.empty(1, 3, 224, 224)) / 1e6 == pytest.approx(mega, rel=0.01)


@pytest.mark.parametrize(
    ("name", "millions", "giga"),
    [
        ("vt_resnet18", 11.7, 1.569),
        ("vt_resnet34", 19.2, 3.236),
        ("vt_resnet50", 21.4, 3.412),
        ("vt_resnet101", 41.5, 7.129),
    ],
)
def test_costs_are_near_those_of_the_paper(name: str, millions: float, giga: float) -> None:
    with torch.device("meta"):
        model = Classifier(VTResNet(name), LinearHead(1024, 1000))
    assert parameters(model) / 1e6 == pytest.approx(millions, rel=0.15)
    assert multiply_adds(model, torch.empty(1, 3, 224, 224)) / 1e9 == pytest.approx(giga, rel=0.05)


@pytest.mark.parametrize("name", VT_RESNETS)
def test_the_last_stage_is_made_of_modules(name: str) -> None:
    with torch.device("meta"):
        model = VTResNet(name)
    assert not hasattr(model.stages, "layer4")
    assert len(model.transformers) == (2 if name == "vt_resnet18" else 3)
    assert model(torch.empty(2, 3, 224, 224, device="meta")).shape == (2, 16, 1024)


def test_every_parameter_learns() -> None:
    model = small("vt_resnet34")
    F.cross_entropy(model(torch.randn(4, 3, 32, 32)).mean(dim=1), torch.arange(4)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        # In timm's ResNets blocks begin as nothing, so what is inside them waits one step.
        assert name.startswith("stages.") or parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("name", ["vt_resnet18", "vt_resnet34", "vt_resnet50"])
def test_signals_neither_vanish_nor_explode(name: str) -> None:
    model = VTResNet(name, 32, stem="small")
    head = nn.Linear(model.width, 10)
    nn.init.trunc_normal_(head.weight, std=0.01)
    sizes = []
    for module in model.transformers:
        module.register_forward_hook(lambda module, inputs, output: sizes.append(output[1].square().mean().sqrt()))
    loss = F.cross_entropy(head(model(torch.randn(4, 3, 32, 32)).mean(dim=1)), torch.randint(10, (4,)))
    loss.backward()
    assert all(0.1 < size < 3 for size in sizes), sizes
    assert abs(loss - math.log(10)) < 0.7
    values = [m.tokenizer.value.weight for m in model.transformers]
    slopes = [(w.grad.norm() / w.norm()).item() for w in values]
    assert max(slopes) < 10 * min(slopes), slopes


def test_it_learns_eight_images_by_heart() -> None:
    model = small(size=24)
    head = nn.Linear(model.width, 8)
    images, classes = torch.randn(8, 3, 24, 24), torch.arange(8)
    optimizer = torch.optim.AdamW([*model.parameters(), *head.parameters()], lr=3e-3)
    for _ in range(30):
        loss = F.cross_entropy(head(model(images).mean(dim=1)), classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1


def test_its_config_builds_it_again() -> None:
    model = small(in_channels=2).eval()
    again = VTResNet(**model.config).eval()
    again.load_state_dict(model.state_dict())
    images = torch.randn(2, 2, 32, 32)
    assert torch.equal(again(images), model(images))
    assert again.config == model.config


def test_drop_path_is_the_resnets_own() -> None:
    rates = [part.drop_prob for part in small("vt_resnet34", drop_path=0.2).modules() if isinstance(part, DropPath)]
    assert rates == sorted(rates) and 0.1 < rates[-1] < 0.2
    assert not any(isinstance(part, DropPath) for part in small().modules())


def test_more_tokens_than_pixels_are_refused_when_it_is_built() -> None:
    with pytest.raises(ValueError, match=r"model.tokens=16 .* 2x2 pixels: .* model.stem=small"):
        VTResNet("vt_resnet18", 32)
    assert VTResNet("vt_resnet18", 32, tokens=4, options=NARROW).width == 1024
    with pytest.raises(ValueError, match=r"model.tokens=65 .* 8x8 pixels: choose 1 to 64, larger images$"):
        small(tokens=65)


def test_what_it_cannot_be_is_said() -> None:
    with pytest.raises(ValueError, match=r"model.name='vt_resnet20' is no VT-ResNet: choose one of vt_resnet18, "):
        VTResNet("vt_resnet20")
    with pytest.raises(ValueError, match="images of shape"):
        small()(torch.randn(1, 3, 24, 24))
    with pytest.raises(ValueError, match=r"no feature maps .*model.name=resnet18 with task.neck=vt_fpn"):
        Segmenter(small(), 2)
    assert not hasattr(small(), "maps")
