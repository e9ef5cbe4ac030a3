"""What the tests of several rooms share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import settings

import mae

# The same examples in every run, and no clock: a busy machine is no failure.
settings.register_profile("quick", deadline=None, max_examples=50, derandomize=True, database=None)
settings.load_profile("quick")

TINY: dict[str, Any] = {
    "name": "vit_tiny_patch16_224",
    "image_size": 16,
    "patch_size": 4,
    "width": 32,
    "depth": 2,
    "heads": 2,
    "decoder_width": 16,
    "decoder_depth": 1,
    "decoder_heads": 2,
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Draw the same numbers in a test whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _quick_drawings(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave drawings blank: they take longer than a short training. tests/report draws, the shared run, and who asks to."""
    drawing = sys.modules.get("mae.report.drawing")
    if drawing is not None and "report" not in request.path.parts and "draws" not in request.keywords:
        monkeypatch.setattr(drawing.Figure, "savefig", lambda _, file, **__: file.write("<svg></svg>"))


@pytest.fixture
def tiny_autoencoder() -> Callable[..., mae.MaskedAutoencoder]:
    """Build two-block autoencoders for 16-pixel images, the same weights each time; keywords override sizes."""

    def build(*, scattered: bool = False, **changes: Any) -> mae.MaskedAutoencoder:
        torch.manual_seed(0)
        model = mae.create_autoencoder(**{**TINY, **changes})
        if scattered:
            # Biases start at zero and norms at one, where a forgotten one would go unseen.
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.requires_grad:
                        parameter.add_(0.1 * torch.randn_like(parameter))
        return model

    return build


@pytest.fixture
def random_plan() -> Callable[..., mae.MaskPlan]:
    """Draw plans that are a function of the arguments."""

    def draw(batch: int, grid: tuple[int, int], ratio: float = 0.75, seed: int = 0) -> mae.MaskPlan:
        noise = torch.rand(batch, grid[0] * grid[1], generator=torch.Generator().manual_seed(seed))
        return mae.MaskPlan.from_noise(noise, grid, ratio)

    return draw


@pytest.fixture
def whole_plan() -> Callable[..., mae.MaskPlan]:
    """Make the plan that hides nothing, which no ratio gives."""

    def make(batch: int, grid: tuple[int, int]) -> mae.MaskPlan:
        order = torch.arange(grid[0] * grid[1]).expand(batch, -1)
        return mae.MaskPlan(order, order[:, :0], torch.zeros(order.shape, dtype=torch.bool), grid)

    return make
