"""The model against a slow one in loops that shares no code with it."""

from __future__ import annotations

import pytest
import torch

import mae
from tests import oracle

CASES = {
    "square": {},
    "plain pixels": {"normalize_pixels": False},
    "rectangle": {"image_size": (8, 24)},
    "rectangle, plain pixels, one channel": {"image_size": (24, 8), "normalize_pixels": False, "in_channels": 1},
    "one channel": {"in_channels": 1},
    "learned positions": {"positions": "learned", "image_size": (8, 24)},
    "registers": {"options": {"reg_tokens": 2}, "image_size": (8, 24)},
    "registers, learned positions": {"options": {"reg_tokens": 2}, "positions": "learned"},
    "positions on patches alone": {"options": {"reg_tokens": 1, "no_embed_class": True}, "positions": "learned"},
    "no class token": {"options": {"class_token": False}, "image_size": (8, 24)},
    "a timm model without class token": {"name": "vit_base_patch16_siglip_gap_224", "positions": "learned"},
    "four heads": {"heads": 4, "decoder_heads": 4, "decoder_depth": 2, "image_size": (8, 16)},
}


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_loss_and_predictions_equal_those_of_the_loops(tiny_autoencoder, changes):
    model = tiny_autoencoder(scattered=True, **{"width": 16, "decoder_width": 16, **changes}).double()
    torch.manual_seed(1)
    images = torch.randn(2, model.encoder.in_channels, *model.encoder.image_size, dtype=torch.float64) * 2 + 0.5
    noise = torch.rand(2, model.grid[0] * model.grid[1])

    out = model(images, mae.MaskPlan.from_noise(noise, model.grid, 0.6))

    sizes = oracle.Sizes(
        grid=(images.shape[2] // 4, images.shape[3] // 4),
        patch=4,
        heads=changes.get("heads", 2),
        decoder_heads=changes.get("decoder_heads", 2),
        ratio=0.6,
        normalize_pixels=changes.get("normalize_pixels", True),
        fixed_positions=changes.get("positions", "sincos") == "sincos",
    )
    with torch.no_grad():
        loss, predictions = oracle.autoencoder_loss(model.state_dict(), images, noise, sizes)
    assert out.loss.item() == pytest.approx(loss, abs=1e-9)
    expected = torch.stack([torch.stack(image) for image in predictions])
    torch.testing.assert_close(out.prediction.detach(), expected, atol=1e-9, rtol=0)
