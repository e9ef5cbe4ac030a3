from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from mae.masking.plan import MaskPlan
from mae.models.autoencoder import create_autoencoder
from mae.models.cost import meta_twin, multiply_adds, parameters, training_multiply_adds


def test_layers_by_hand() -> None:
    tokens, image = torch.empty(2, 5, 8), torch.empty(2, 8, 6, 6)
    assert multiply_adds(nn.Linear(8, 3), tokens) == 2 * 5 * 8 * 3
    assert multiply_adds(nn.Conv2d(8, 4, 3, stride=2, padding=1), image) == 2 * 3 * 3 * 4 * 8 * 9
    assert multiply_adds(nn.Conv2d(8, 4, 3, padding=1, groups=4), image) == 2 * 6 * 6 * 4 * 2 * 9
    assert multiply_adds(nn.ConvTranspose2d(8, 4, 2, stride=2), image) == 2 * 6 * 6 * 8 * 4 * 4
    assert multiply_adds(nn.Sequential(nn.GroupNorm(2, 8), nn.ReLU(), nn.MaxPool2d(2)), image) == 0


class Sum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, first: list[torch.Tensor], second: torch.Tensor) -> torch.Tensor:
        return self.layer(sum(first) + second)


def test_lists_and_several_inputs_go_in() -> None:
    assert multiply_adds(Sum(), [torch.empty(3, 4), torch.empty(3, 4)], torch.empty(3, 4)) == 3 * 16


@pytest.mark.parametrize(
    ("name", "width", "depth", "patch"), [("vit_base_patch16_224", 768, 12, 16), ("vit_huge_patch14_224", 1280, 32, 14)]
)
def test_a_vit_by_hand_attention_and_all(name: str, width: int, depth: int, patch: int) -> None:
    with torch.device("meta"):
        vit = timm.create_model(name, num_classes=1000)
    tokens = (224 // patch) ** 2 + 1
    block = tokens * 12 * width * width + 2 * tokens * tokens * width
    embed, head = (tokens - 1) * 3 * patch * patch * width, 1000 * width
    assert multiply_adds(vit, torch.empty(1, 3, 224, 224, device="meta")) == depth * block + embed + head


def test_a_model_is_left_as_it_is() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Dropout(), nn.Flatten())).train()
    model[2].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    twin = meta_twin(model)
    multiply_adds(model, torch.randn(1, 3, 8, 8))
    assert model.training and model[1].training and not model[2].training and not twin.training
    assert all(value.is_meta for value in twin.state_dict().values())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_twin_keeps_what_is_shared_and_what_learns() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    model[0].bias.requires_grad_(False)
    twin = meta_twin(model)
    assert twin[0].weight is twin[1].weight
    assert [p.requires_grad for p in twin.parameters()] == [p.requires_grad for p in model.parameters()]


def test_parameters_count_once_and_buffers_never() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.BatchNorm1d(4))
    assert parameters(model) == 2 * 20 + 8
    model[1].weight = model[0].weight
    model.requires_grad_(False)
    assert parameters(model) == 16 + 2 * 4 + 8


def test_a_training_step_by_hand_attention_and_all() -> None:
    model = create_autoencoder(
        "vit_tiny_patch16_224",
        image_size=16,
        in_channels=1,
        patch_size=4,
        width=32,
        depth=2,
        heads=4,
        decoder_width=16,
        decoder_depth=1,
        decoder_heads=2,
    )
    plan = MaskPlan.from_noise(torch.rand(1, 16), model.grid, 0.75)
    weights = {name: value.clone() for name, value in model.state_dict().items()}

    def block(tokens: int, width: int) -> int:
        return 12 * tokens * width * width + 2 * tokens * tokens * width

    # The last block of the decoder: keys and values of 17 tokens; queries, their products, and the MLP of the 12 hidden ones.
    last = (2 * 17 + 2 * 12 + 8 * 12) * 16 * 16 + 2 * 12 * 17 * 16
    # 4 visible patches and the class token are embedded and encoded, 16 and the token decoded, 12 hidden ones predicted.
    forward = 4 * 16 * 32 + 2 * block(5, 32) + 5 * 32 * 16 + last + 12 * 16 * 16
    assert training_multiply_adds(model, plan) == pytest.approx(3 * forward, rel=0.05)
    assert model.encoder.pixel_mean is None and model.training
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
