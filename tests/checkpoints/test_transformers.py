"""Parity with the ViTMAE of transformers, through folders that it saved."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import mae

transformers = pytest.importorskip("transformers")

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 96,
    "patch_size": 4,
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 4,
    "decoder_intermediate_size": 48,
    "mask_ratio": 0.6,
}
# transformers fills its tables for a square of the same number of patches, so 2x8 is the rectangle that it can build.
IMAGE_SIZES = [16, (8, 32)]


def scatter(peer: torch.nn.Module) -> None:
    """Give every weight a value of its own; built from scratch, positions, biases and mask token are all zero."""
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


def make_peer(**changes) -> transformers.ViTMAEForPreTraining:
    peer = transformers.ViTMAEForPreTraining(transformers.ViTMAEConfig(**{**SIZES, **changes})).eval()
    scatter(peer)
    return peer


@torch.no_grad()
def peer_pass(peer, images: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and predictions (B, L, P*P*C); the peer's own forward refuses images that are not square."""
    if images.shape[2] == images.shape[3]:
        out = peer(images, noise=noise)
        return out.loss, out.logits
    encoded = peer.vit(images, noise=noise)
    logits = peer.decoder(encoded.last_hidden_state, encoded.ids_restore).logits
    target = peer.patchify(images, interpolate_pos_encoding=True)  # the flag only lifts the check of squareness
    if peer.config.norm_pix_loss:
        target = (target - target.mean(dim=-1, keepdim=True)) / (target.var(dim=-1, keepdim=True) + 1e-6) ** 0.5
    error = (logits - target).square().mean(dim=-1)
    return (error * encoded.mask).sum() / encoded.mask.sum(), logits


@pytest.mark.parametrize("image_size", IMAGE_SIZES)
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("channels", [3, 1])
def test_loss_and_predictions_agree(tmp_path, image_size, normalize, channels):
    peer = make_peer(image_size=image_size, norm_pix_loss=normalize, num_channels=channels)
    peer.save_pretrained(tmp_path)
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    images, noise = torch.randn(3, channels, height, width), torch.rand(3, 16)

    model = mae.load_autoencoder(tmp_path).eval()
    plan = mae.MaskPlan.from_noise(noise, model.grid, 0.6)
    with torch.no_grad():
        out = model(images, plan)

    loss, logits = peer_pass(peer, images, noise)
    assert model.grid == (height // 4, width // 4)
    assert out.loss.item() == pytest.approx(loss.item(), abs=1e-5)
    expected = torch.stack([logits[i, plan.masked[i]] for i in range(3)])
    torch.testing.assert_close(out.prediction, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("changes", [{"qkv_bias": False}, {"layer_norm_eps": 1e-3}], ids=str)
def test_predictions_agree_for_other_options(tmp_path, changes):
    peer = make_peer(image_size=16, **changes)
    peer.save_pretrained(tmp_path)
    images, noise = torch.randn(2, 3, 16, 16), torch.rand(2, 16)

    with torch.no_grad():
        out = mae.load_autoencoder(tmp_path)(images, mae.MaskPlan.from_noise(noise, (4, 4), 0.6))

    assert out.loss.item() == pytest.approx(peer_pass(peer, images, noise)[0].item(), abs=1e-5)


@pytest.mark.parametrize("names", ["as saved", "as in memory"])
@pytest.mark.parametrize("image_size", IMAGE_SIZES)
def test_a_bare_encoder_agrees(tmp_path, image_size, names):
    peer = transformers.ViTMAEModel(transformers.ViTMAEConfig(**SIZES, image_size=image_size)).eval()
    scatter(peer)
    peer.save_pretrained(tmp_path)
    if names == "as in memory":
        save_file(peer.state_dict(), tmp_path / "model.safetensors")
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    images, noise = torch.randn(2, 3, height, width), torch.rand(2, 16)

    encoder = mae.load_encoder(tmp_path).eval()
    with torch.no_grad():
        tokens = encoder(images, mae.MaskPlan.from_noise(noise, encoder.grid, 0.6))
        expected = peer(images, noise=noise).last_hidden_state

    torch.testing.assert_close(tokens, expected, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="holds an encoder alone"):
        mae.load_autoencoder(tmp_path)


def test_the_names_of_the_peer_in_memory_load_too(tmp_path):
    peer = make_peer(image_size=16)
    peer.save_pretrained(tmp_path / "saved")
    peer.save_pretrained(tmp_path / "memory")
    save_file(peer.state_dict(), tmp_path / "memory" / "model.safetensors")

    saved, memory = (mae.load_autoencoder(tmp_path / name).state_dict() for name in ("saved", "memory"))

    assert saved.keys() == memory.keys()
    assert all(torch.equal(saved[key], memory[key]) for key in saved)


def test_the_statistics_of_the_preprocessor_are_read(tmp_path):
    make_peer(image_size=16).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]})
    )

    encoder = mae.load_autoencoder(tmp_path).encoder

    assert (encoder.pixel_mean, encoder.pixel_std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_an_activation_that_is_not_the_papers_is_refused(tmp_path):
    make_peer(image_size=16, hidden_act="relu").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="hidden_act='relu' is not supported, only gelu"):
        mae.load_autoencoder(tmp_path)


def test_an_unknown_weight_is_refused_by_name(tmp_path):
    make_peer(image_size=16).save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    save_file({**state, "classifier.weight": torch.ones(2)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"classifier\.weight"):
        mae.load_autoencoder(tmp_path)


def test_a_missing_weight_is_refused(tmp_path):
    make_peer(image_size=16).save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state["vit.layernorm.bias"]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"missing: encoder\.vit\.norm\.bias"):
        mae.load_autoencoder(tmp_path)


def test_a_peer_built_from_scratch_is_warned_about_for_its_zero_positions(tmp_path, caplog):
    peer = transformers.ViTMAEForPreTraining(transformers.ViTMAEConfig(**SIZES, image_size=16))
    with torch.no_grad():
        peer.vit.embeddings.position_embeddings.zero_()
    peer.save_pretrained(tmp_path)

    mae.load_encoder(tmp_path)

    assert "every row of encoder.vit.pos_embed is zero" in caplog.text
