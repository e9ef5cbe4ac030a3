from __future__ import annotations

import pytest
import timm
import torch
from timm.layers import DropPath
from torch import nn

from mae.models.backbones.convnet import ConvNet

NARROW = {"channels": [8, 16, 32, 64]}


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto"])
def test_the_mean_of_its_tokens_is_what_timm_pools(name: str) -> None:
    model = ConvNet(name, 64).eval()
    theirs = timm.create_model(name, num_classes=0).eval()
    # timm's stages are named stages_0 where its whole network has stages.0
    own = {
        key.replace("stages_", "stages.").replace("stem_", "stem."): w for key, w in model.stages.state_dict().items()
    }
    assert not theirs.load_state_dict(own, strict=False).unexpected_keys
    images = torch.randn(2, 3, 64, 64)
    tokens = model(images)
    assert tokens.shape == (2, 4, model.width)
    torch.testing.assert_close(tokens.mean(dim=1), theirs.forward_features(images).mean(dim=(2, 3)))


@pytest.mark.parametrize(
    "name", ["resnet18", "convnext_atto", "efficientnet_b0", "regnety_002", "densenet121", "dla34"]
)
def test_maps_are_the_last_four_stages(name: str) -> None:
    with torch.device("meta"):
        model = ConvNet(name, (64, 96), 4)
        images = torch.empty(2, 4, 64, 96)
    maps = model.eval().maps(images)
    assert model.map_strides == (4, 8, 16, 32)
    sides = zip(model.map_widths, model.map_strides, strict=True)
    assert [tuple(part.shape) for part in maps] == [(2, width, 64 // s, 96 // s) for width, s in sides]
    assert model.width == model.map_widths[-1] and model.depth == 0 and model.num_prefix_tokens == 0


def test_tokens_lie_row_by_row() -> None:
    model = ConvNet("resnet18", (64, 96), options=NARROW).eval()
    images = torch.randn(2, 3, 64, 96)
    tokens, last = model(images), model.maps(images)[-1]
    assert torch.equal(tokens[:, 4], last[:, :, 1, 1])


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto"])
def test_every_parameter_learns_from_its_tokens(name: str) -> None:
    model = ConvNet(name, 32)
    model(torch.randn(2, 3, 32, 32).repeat(2, 1, 1, 1)).square().sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_a_small_stem_keeps_small_images() -> None:
    model = ConvNet("resnet18", 32, 2, stem="small", options=NARROW)
    assert model.map_strides == (1, 2, 4, 8)
    assert [part.shape[-1] for part in model.maps(torch.randn(2, 2, 32, 32))] == [32, 16, 8, 4]
    first = model.stages.conv1
    assert (first.in_channels, first.kernel_size, first.stride) == (2, (3, 3), (1, 1))
    images = torch.randn(8, 2, 32, 32)
    assert 0.5 < first(images).std() / (2 * 9 / 64 * 2 / 9) ** 0.5 < 2


def test_its_config_builds_it_again() -> None:
    model = ConvNet("resnet18", (32, 48), 1, stem="small", drop_path=0.1, options=NARROW).eval()
    assert model.config == {
        "name": "resnet18",
        "image_size": [32, 48],
        "in_channels": 1,
        "stem": "small",
        "options": NARROW,
    }
    again = ConvNet(**model.config).eval()
    again.load_state_dict(model.state_dict())
    images = torch.randn(2, 1, 32, 48)
    assert torch.equal(again(images), model(images))


def test_drop_path_rises_to_the_last_block() -> None:
    drops = [part.drop_prob for part in ConvNet("resnet18", 32, drop_path=0.1).modules() if isinstance(part, DropPath)]
    assert drops == sorted(drops) and drops[-1] == pytest.approx(0.1)
    with pytest.raises(ValueError, match="'vgg11' has no stochastic depth"):
        ConvNet("vgg11", drop_path=0.1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"name": "resnet180"}, r"model.name='resnet180' is not a timm model: did you mean .*resnet18"),
        ({"name": "swin_tiny_patch4_window7_224"}, r"is no convolutional network .* resnet50"),
        ({"name": "mixer_s32_224"}, "is no convolutional network"),
        ({"name": "vit_tiny_patch16_224"}, "is no convolutional network .* or a ViT"),
        ({"name": "levit_128"}, "timm cannot build levit_128 as stages of feature maps"),
        ({"stem": "tiny"}, r"model.stem='tiny' is unknown: choose small"),
        ({"name": "resnet50d", "stem": "small"}, r"model.stem=small is for ResNets .* not for resnet50d"),
        ({"name": "convnext_atto", "stem": "small"}, r"model.stem=small .* not for convnext_atto: choose"),
        ({"name": "convnext_atto", "image_size": 16}, r"data.image_size=16x16 does not go through convnext_atto"),
        ({"options": {"in_chans": 1}}, r"model.options.in_chans is set by the network itself"),
        ({"options": {"drop_path_rate": 0.1}}, r"model.options.drop_path_rate is set by the network itself"),
        ({"options": {"colour": "red"}}, r"timm cannot build resnet18 .*colour"),
    ],
)
def test_what_cannot_be_built_is_said_in_one_line(arguments: dict, says: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=says) as error:
        ConvNet(**{"name": "resnet18", **arguments})
    assert "\n" not in str(error.value)


def test_images_of_another_size_are_refused() -> None:
    model = ConvNet("resnet18", 32, options=NARROW)
    for shape in ((1, 3, 64, 64), (1, 1, 32, 32)):
        with pytest.raises(ValueError, match="images of shape"):
            model(torch.randn(shape))


def test_a_last_map_of_one_pixel_is_enough() -> None:
    assert ConvNet("resnet18", 16, options=NARROW).eval()(torch.randn(1, 3, 16, 16)).shape == (1, 1, 64)


def test_looking_at_sizes_leaves_the_network_as_it_is() -> None:
    model = ConvNet("resnet18", 32, options=NARROW)
    assert all(part.training for part in model.modules())
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)]
    assert all(norm.num_batches_tracked == 0 for norm in norms)
