from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from mae.models.cost import multiply_adds
from mae.models.layers.pyramids import FPN, NECKS, VTFPN, SimplePyramid

RESNET50 = (256, 512, 1024, 2048)
WIDTHS, GRIDS = (8, 16, 24, 32), ((13, 9), (7, 5), (4, 3), (2, 2))


def grids(height: int, width: int) -> list[tuple[int, int]]:
    return [(math.ceil(height / stride), math.ceil(width / stride)) for stride in (4, 8, 16, 32)]


def maps(widths: tuple[int, ...], sizes: list[tuple[int, int]], batch: int = 1, **kind: object) -> list[torch.Tensor]:
    return [torch.randn(batch, width, *size, **kind) for width, size in zip(widths, sizes, strict=True)]


@pytest.mark.parametrize(("size", "fpn", "vt_fpn"), [((800, 1216), 55.10, 8.54), ((473, 473), 12.89, 2.06)])
def test_costs_are_those_of_the_design(size: tuple[int, int], fpn: float, vt_fpn: float) -> None:
    sizes = grids(*size)
    with torch.device("meta"):
        inputs = maps(RESNET50, sizes)
        necks = {FPN(RESNET50): fpn, VTFPN(RESNET50, sizes): vt_fpn}
    for neck, giga in necks.items():
        assert multiply_adds(neck, inputs) / 1e9 == pytest.approx(giga, rel=0.01)


def by_name(name: str) -> nn.Module:
    return {
        "fpn": lambda: FPN(WIDTHS, 16),
        "vt_fpn": lambda: VTFPN(WIDTHS, GRIDS, tokens=4, token_width=32, out=16),
        "simple": lambda: SimplePyramid(8, 16, 16),
    }[name]()


@pytest.mark.parametrize("name", NECKS)
def test_every_parameter_learns_and_odd_sizes_fit(name: str) -> None:
    neck = by_name(name)
    assert type(neck) is NECKS[name]
    inputs = maps(WIDTHS, GRIDS, 2) if name != "simple" else maps((8,), [(13, 9)], 2)
    pyramid = neck(inputs)
    assert all(part.shape[:2] == (2, 16) for part in pyramid)
    sizes = [tuple(part.shape[2:]) for part in pyramid]
    assert sizes == (list(GRIDS) if name != "simple" else [(52, 36), (26, 18), (13, 9), (7, 5)])
    sum((part * torch.randn_like(part)).sum() for part in pyramid).backward()
    for parameter, value in neck.named_parameters():
        assert value.grad is not None and value.grad.abs().sum() > 0, parameter


def test_vt_fpn_follows_the_paper() -> None:
    L, C_T, out = 3, 32, 16
    neck = VTFPN(WIDTHS[:2], GRIDS[:2], tokens=L, token_width=C_T, out=out).double()
    inputs = maps(WIDTHS[:2], GRIDS[:2], dtype=torch.float64)
    w = {name: value.detach().numpy() for name, value in neck.named_parameters()}

    def softmax(logits: np.ndarray, axis: int) -> np.ndarray:
        powers = np.exp(logits - logits.max(axis=axis, keepdims=True))
        return powers / powers.sum(axis=axis, keepdims=True)

    pixels, tokens = [], []
    for level, part in enumerate(inputs):
        lateral = w[f"laterals.{level}.weight"][:, :, 0, 0]
        x = np.einsum("oc,chw->hwo", lateral, part[0].numpy()).reshape(-1, out) + w[f"laterals.{level}.bias"]
        shares = softmax(x @ w[f"tokenizers.{level}.filters.weight"].T, axis=0)
        tokens.append(shares.T @ x @ w[f"tokenizers.{level}.value.weight"].T)
        pixels.append(x)
    t = np.concatenate(tokens)  # (2 L, C_T): the levels meet here
    asks, answers = t @ w["transformer.key.weight"].T, t @ w["transformer.query.weight"].T
    t = t + softmax(asks @ answers.T / math.sqrt(C_T / 4), axis=1) @ t
    t = t + np.maximum(t @ w["transformer.hidden.weight"].T, 0) @ w["transformer.output.weight"].T
    for level, (x, found) in enumerate(zip(pixels, neck(inputs), strict=True)):
        own = t[level * L : (level + 1) * L]
        groups = np.split(w[f"projectors.{level}.query.weight"][:, :, 0], 8)
        queries = np.concatenate([part @ g.T for part, g in zip(np.split(x, 8, axis=1), groups, strict=True)], axis=1)
        keys = own @ w[f"projectors.{level}.key.weight"].T
        shares = softmax(queries @ keys.T / math.sqrt(C_T / 4), axis=1)
        expected = x + shares @ (own @ w[f"projectors.{level}.value.weight"].T)
        np.testing.assert_allclose(found[0].detach().numpy().transpose(1, 2, 0).reshape(-1, out), expected)


def test_levels_meet_in_the_tokens_of_vt_fpn() -> None:
    neck = by_name("vt_fpn").double()
    inputs = maps(WIDTHS, GRIDS, dtype=torch.float64)
    changed = [part + (level == 3) * torch.randn_like(part) for level, part in enumerate(inputs)]
    for before, after in zip(neck(inputs), neck(changed), strict=True):
        assert not torch.allclose(before, after)


def test_vt_fpn_refuses_more_tokens_than_pixels() -> None:
    with pytest.raises(ValueError, match=r"task.tokens=5 .* 2x2 pixels: choose 1 to 4, .* task.neck=fpn"):
        VTFPN(WIDTHS, GRIDS, tokens=5)


@pytest.mark.parametrize(
    ("stride", "sides"),
    [
        (32, [32, 16, 8, 4]),
        (16, [32, 16, 8, 4]),
        (14, [32, 16, 8, 4]),
        (4, [32, 16, 8, 4]),
        (2, [16, 8, 4, 2]),
        (1, [8, 4, 2, 1]),
    ],
)
def test_the_simple_pyramid_never_sees_finer_than_pixels(stride: int, sides: list[int]) -> None:
    pyramid = SimplePyramid(8, stride, 16)([torch.randn(1, 8, 8, 8)])
    assert [part.shape[-1] for part in pyramid] == sides
    assert 8 * stride >= pyramid[0].shape[-1]


def test_a_map_of_one_pixel_stays_one() -> None:
    assert [part.shape[-1] for part in SimplePyramid(8, 1, 16)([torch.randn(1, 8, 1, 1)])] == [1, 1, 1, 1]
