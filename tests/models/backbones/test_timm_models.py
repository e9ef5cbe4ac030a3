"""timm's ViTs as they are: their norms stay theirs, and weights that nobody loads are not asked for."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.layers import RmsNorm
from torch import nn

import mae
from mae.models.backbones.convnet import ConvNet
from mae.models.backbones.encoder import Encoder
from mae.models.classifier import Classifier
from mae.models.heads import LinearHead

SMALL = {"image_size": 32, "patch_size": 8, "width": 32, "depth": 2, "heads": 2, "positions": "learned"}


def norms(model: nn.Module) -> set[type]:
    return {type(part) for part in model.modules() if isinstance(part, RmsNorm | nn.LayerNorm)}


def test_a_vit_with_rms_norms_keeps_them_and_equals_timms(tmp_path) -> None:
    encoder = Encoder("test_vit4", image_size=32, patch_size=8, positions="learned").eval()
    theirs = timm.create_model(
        "test_vit4", img_size=32, patch_size=8, num_classes=0, global_pool="", fc_norm=False
    ).eval()
    assert norms(encoder) == norms(theirs) == {RmsNorm}
    theirs.load_state_dict(encoder.vit.state_dict())
    images = torch.randn(2, 3, 32, 32)

    assert torch.equal(encoder(images), theirs.forward_features(images))
    assert encoder.config["norm_eps"] is None
    loaded = mae.load_encoder(mae.save(encoder, tmp_path)).eval()
    assert torch.equal(loaded(images), encoder(images))
    assert norms(Classifier(encoder, LinearHead(encoder.width, 5)).encoder) == {RmsNorm}


def test_a_file_of_layer_norms_and_a_config_that_asks_for_them_still_have_them() -> None:
    # What was built before with LayerNorms says so by its epsilon.
    assert norms(Encoder("test_vit4", image_size=32, patch_size=8, positions="learned", norm_eps=1e-6)) == {
        nn.LayerNorm
    }


def test_layer_norms_have_the_papers_epsilon_unless_asked() -> None:
    for given, eps in (({}, 1e-6), ({"norm_eps": 1e-5}, 1e-5)):
        # timm's own of this model is 1e-5.
        encoder = Encoder("vit_base_patch16_clip_224", **SMALL, **given)
        assert {part.eps for part in encoder.modules() if isinstance(part, nn.LayerNorm)} == {eps}
        assert encoder.config["norm_eps"] == eps


def test_a_name_that_asks_for_pretrained_weights_is_refused_with_the_name_that_does_not() -> None:
    says = (
        r"model\.name='vit_tiny_patch16_224\.augreg_in21k' names the weights 'augreg_in21k', which are not loaded: drop the tag, "
        r"model\.name=vit_tiny_patch16_224 "
    )
    with pytest.raises(ValueError, match=says):
        Encoder("vit_tiny_patch16_224.augreg_in21k", **SMALL)


def test_a_file_whose_name_holds_a_tag_still_loads(tmp_path) -> None:
    encoder = Encoder("vit_tiny_patch16_224", **SMALL)
    encoder.config["name"] = "vit_tiny_patch16_224.augreg_in21k"
    assert mae.load_encoder(mae.save(encoder, tmp_path)).config["name"] == "vit_tiny_patch16_224"


@pytest.mark.parametrize(
    "option", [{"pretrained": True}, {"checkpoint_path": "other.pth"}, {"pretrained_cfg": {"file": "x"}}]
)
def test_options_that_would_have_timm_read_weights_are_refused_also_of_a_file(option, tmp_path) -> None:
    (key,) = option
    says = rf"model\.options\.{key}=.* would have timm load weights: leave it out, and give a file of weights by checkpoint=PATH"
    for build in (Encoder, ConvNet):
        with pytest.raises(ValueError, match=says):
            build("vit_tiny_patch16_224" if build is Encoder else "resnet18", 32, options=option)
    encoder = Encoder("vit_tiny_patch16_224", **SMALL)
    encoder.config["options"] = option
    saved = mae.save(encoder, tmp_path)
    with pytest.raises(ValueError, match=says):
        mae.load_encoder(saved)
    assert Encoder("vit_tiny_patch16_224", **SMALL, options={"pretrained": False}).depth == 2
