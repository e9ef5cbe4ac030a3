from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mae.models.backbones.backbone import Backbone
from mae.models.backbones.convnet import ConvNet
from mae.models.backbones.encoder import Encoder
from mae.models.cost import meta_twin
from mae.models.segmenter import Segmenter, SemanticHead

NARROW = {"channels": [8, 16, 32, 64]}
LIGHT = {"width": 32, "tokens": 4, "token_width": 64, "neck_width": 32}


def convnet(size: int | tuple[int, int] = 32) -> ConvNet:
    return ConvNet("resnet18", size, stem="small", options=NARROW)


def vit(size: int = 32) -> Encoder:
    return Encoder("vit_tiny_patch16_224", size, patch_size=4, width=32, depth=2, heads=2)


COMBINATIONS = [
    pytest.param(convnet, "fpn", id="fpn"),
    pytest.param(convnet, "vt_fpn", id="vt_fpn"),
    pytest.param(vit, "simple", id="simple"),
]


@pytest.mark.parametrize(("backbone", "neck"), COMBINATIONS)
def test_every_parameter_learns(backbone: Callable[[], Backbone], neck: str) -> None:
    model = Segmenter(backbone(), 3, neck=neck, **LIGHT)
    logits = model(torch.randn(2, 3, 32, 32))
    assert logits.shape == (2, 3, 32, 32)
    F.cross_entropy(logits, torch.randint(3, (2, 32, 32))).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    others = [*model.neck.named_parameters(), *model.head.named_parameters()]
    assert [name for name, parameter in others if not parameter.grad.abs().sum()] == []


@pytest.mark.parametrize(("backbone", "neck"), COMBINATIONS)
def test_it_learns_eight_images_by_heart(backbone: Callable[[int], Backbone], neck: str) -> None:
    # Three classes: a ground, a box and a disc of any colour, so that shape decides.
    images, classes = torch.zeros(8, 3, 16, 16), torch.zeros(8, 16, 16, dtype=torch.int64)
    rows, columns = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    for image, target in zip(images, classes, strict=True):
        y, x, v, u = torch.randint(1, 9, (4,)).tolist()
        target[y : y + 7, x : x + 6] = 1
        target[(rows - v - 3) ** 2 + (columns - u - 3) ** 2 < 14] = 2
        image += torch.randn(3, 1, 1) + (target > 0) * torch.randn(3, 1, 1) + (target > 1) * torch.randn(3, 1, 1)
    model = Segmenter(backbone(16), 3, neck=neck, **LIGHT)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(40):
        loss = F.cross_entropy(model(images), classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = model(images).argmax(dim=1)
    overlaps = [((found == k) & (classes == k)).sum() / ((found == k) | (classes == k)).sum() for k in range(3)]
    assert sum(overlaps) / 3 > 0.9


@pytest.mark.parametrize("neck", ["fpn", "vt_fpn"])
def test_odd_sizes_come_back_whole(neck: str) -> None:
    model = Segmenter(convnet((45, 37)), 2, neck=neck, **LIGHT).eval()
    assert model(torch.randn(1, 3, 45, 37)).shape == (1, 2, 45, 37)
    with torch.device("meta"):
        large = Segmenter(ConvNet("resnet50", 473), 20, neck=neck)
        assert large.eval()(torch.empty(2, 3, 473, 473)).shape == (2, 20, 473, 473)


def test_the_head_climbs_as_in_the_paper() -> None:
    head = SemanticHead(8, 5, 4, width=32)
    convolutions = [sum(isinstance(part, nn.Conv2d) for part in climb.modules()) for climb in head.climbs]
    assert convolutions == [1, 1, 2, 3]
    maps = [torch.randn(2, 8, side, side) for side in (16, 8, 4, 2)]
    total = torch.zeros(2, 32, 16, 16)
    for level, part in enumerate(maps):
        layers = [layer for layer in head.climbs[level].modules() if isinstance(layer, nn.Conv2d | nn.GroupNorm)]
        for conv, norm in zip(layers[::2], layers[1::2], strict=True):
            assert conv.kernel_size == (3, 3) and norm.num_groups == 8
            part = norm(F.conv2d(part, conv.weight, padding=1)).relu()
            if level:
                part = F.interpolate(part, scale_factor=2, mode="bilinear")
        total += part
    torch.testing.assert_close(head(maps), head.classify(total))


def test_a_frozen_backbone_stays_as_it_is() -> None:
    model = Segmenter(convnet(), 2, frozen=True, **LIGHT).train()
    assert not any(part.training for part in model.encoder.modules())
    assert model.neck.training and model.head.training
    before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(torch.randn(2, 3, 32, 32)).square().mean().backward()
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in model.encoder.state_dict().items())
    assert all(p.grad is not None for p in [*model.neck.parameters(), *model.head.parameters()])
    assert all(part.training for part in Segmenter(convnet(), 2, **LIGHT).train().modules())


def test_what_fits_is_chosen_and_what_does_not_is_refused() -> None:
    assert type(Segmenter(convnet(), 2, **LIGHT).neck).__name__ == "FPN"
    assert type(Segmenter(vit(), 2, **LIGHT).neck).__name__ == "SimplePyramid"
    with pytest.raises(ValueError, match=r"task.neck='pan' is unknown: choose one of fpn, vt_fpn, simple"):
        Segmenter(vit(), 2, neck="pan")
    with pytest.raises(
        ValueError, match=r"task.neck=simple does not fit resnet18, which gives several maps: choose fpn"
    ):
        Segmenter(convnet(), 2, neck="simple")
    with pytest.raises(
        ValueError, match=r"task.neck=vt_fpn does not fit vit_tiny_patch16_224, .* one map: choose simple"
    ):
        Segmenter(vit(), 2, neck="vt_fpn")
    with pytest.raises(ValueError, match=r"task.tokens=17 .* 4x4 pixels"):
        Segmenter(convnet(), 2, neck="vt_fpn", tokens=17)


def test_it_can_be_counted_without_memory() -> None:
    twin = meta_twin(Segmenter(convnet(), 2, **LIGHT))
    assert twin(torch.empty(1, 3, 32, 32, device="meta")).shape == (1, 2, 32, 32)
