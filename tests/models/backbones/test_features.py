from __future__ import annotations

import pytest
import torch

import mae
from mae.checkpoints.load import encoder_from
from mae.checkpoints.read import read_checkpoint
from mae.models.backbones.create_backbone import create_backbone
from mae.models.classifier import Classifier
from mae.models.segmenter import Segmenter

SIZES = {"patch_size": 4, "width": 16, "depth": 1, "heads": 2}


@pytest.fixture
def whitened(tiny_autoencoder):
    """An autoencoder whose encoder stores a whitening."""
    model = tiny_autoencoder()
    model.encoder.fit_whitening(model.encoder.features(torch.randn(100, 3, 16, 16), whitened=False))
    return model


def test_raw_features_are_the_mean_of_the_patches_without_class_and_register_tokens(tiny_autoencoder):
    encoder = tiny_autoencoder(options={"reg_tokens": 2}).encoder
    images = torch.randn(3, 3, 16, 16)

    assert torch.equal(encoder.features(images, whitened=False), encoder(images)[:, 3:].mean(dim=1))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet18", "vt_resnet18"])
def test_features_of_any_backbone_are_whitened(name):
    options = SIZES if name.startswith("vit") else {"stem": "small"}
    encoder = create_backbone(name, 32, 3, **options).eval()
    images = torch.randn(40, 3, 32, 32)
    with torch.no_grad():
        raw = encoder.features(images, whitened=False)
        encoder.fit_whitening(raw)
        white = encoder.features(images)

    assert white.shape == (40, encoder.width)
    assert torch.equal(white, encoder.whitening(raw))


def test_without_a_whitening_the_error_names_both_ways_out(tiny_autoencoder):
    with pytest.raises(ValueError, match=r"no whitening, .*encoder.fit_whitening\(features\).*whitened=False"):
        tiny_autoencoder().encoder.features(torch.randn(1, 3, 16, 16))


def test_features_of_another_width_are_refused(tiny_autoencoder):
    with pytest.raises(ValueError, match=r"\(10, 5\) do not fit an encoder of width 32"):
        tiny_autoencoder().encoder.fit_whitening(torch.randn(10, 5))


def test_the_whitening_travels_with_the_weights(whitened, tmp_path):
    images = torch.randn(4, 3, 16, 16)
    wanted = whitened.encoder.features(images)
    mae.save(whitened, tmp_path / "model")
    mae.save(whitened.encoder, tmp_path / "encoder")

    for encoder in (
        mae.load_autoencoder(tmp_path / "model").encoder,
        mae.load_encoder(tmp_path / "model"),
        mae.load_encoder(tmp_path / "encoder"),
    ):
        assert torch.equal(encoder.features(images), wanted)
    larger = mae.load_encoder(tmp_path / "encoder", image_size=32)
    assert larger.features(torch.randn(2, 3, 32, 32)).shape == (2, 32)


def test_what_is_stored_beside_the_weights_is_not_counted_as_parameters(whitened, tiny_autoencoder, tmp_path):
    plain = tiny_autoencoder().encoder
    _, with_it = encoder_from(read_checkpoint(mae.save(whitened.encoder, tmp_path / "with")))
    loaded, without = encoder_from(read_checkpoint(mae.save(plain, tmp_path / "without")))

    assert with_it.loaded == without.loaded
    assert loaded.whitening is None


def test_an_encoder_that_goes_on_to_learn_loses_its_whitening_and_a_frozen_one_keeps_it(whitened):
    encoder, head = whitened.encoder, torch.nn.Linear(32, 5)
    Classifier(encoder, head, blocks=0)
    Segmenter(encoder, 3, frozen=True)
    assert encoder.whitening is not None

    for learning in (
        lambda: Classifier(encoder, head),
        lambda: Classifier(encoder, head, blocks=1),
        lambda: Segmenter(encoder, 3),
    ):
        encoder.fit_whitening(torch.randn(100, 32))
        learning()
        assert encoder.whitening is None
