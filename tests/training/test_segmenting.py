"""What a segmenter under training counts and logs."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import mae
from mae.data.loading.batches import Batch
from mae.data.segmentation.masks import IGNORE, MaskError
from mae.models.segmenter import Segmenter
from mae.training.segmenting import SegmentationModule

TASK = {"name": "segmentation", "neck": "simple", "neck_width": 8, "width": 8, "tokens": 1, "token_width": 8}


@pytest.fixture
def module(tiny_autoencoder: Callable[..., mae.MaskedAutoencoder], monkeypatch: pytest.MonkeyPatch) -> Any:
    encoder = tiny_autoencoder().encoder
    encoder.set_pixel_statistics([0.5] * 3, [0.25] * 3)
    built = SegmentationModule(
        Segmenter(encoder, 2, neck_width=TASK["neck_width"], width=TASK["width"]), TASK, ("ground", "disc")
    )
    logged: dict[str, Any] = {}
    monkeypatch.setattr(built, "log", lambda name, value, **_: logged.update({name: value}))
    monkeypatch.setattr(built, "log_dict", lambda values, **_: logged.update(values))
    built.logged = logged
    return built.eval()


@torch.no_grad()
def validate(module: Any, masks: torch.Tensor, *, sanity: bool) -> dict[str, Any]:
    module._trainer = SimpleNamespace(sanity_checking=sanity)
    module.logged.clear()
    images = torch.zeros(len(masks), 3, 16, 16, dtype=torch.uint8)
    module.validation_step(Batch(images, masks, torch.arange(len(masks))), 0)
    module.on_validation_epoch_end()
    return dict(module.logged)


def test_a_first_batch_without_a_label_stops_nothing_and_a_whole_split_is_an_error(module: Any) -> None:
    nothing = torch.full((2, 16, 16), IGNORE, dtype=torch.uint8)
    assert "val_miou" not in validate(module, nothing, sanity=True)
    with pytest.raises(MaskError, match="no pixel that was scored has a label"):
        validate(module, nothing, sanity=False)

    known = torch.zeros_like(nothing)
    figures = validate(module, known, sanity=False)
    assert 0 <= figures["val_miou"] <= 1
    assert validate(module, known, sanity=True) == figures, "nothing is left over from one validation to the next"
