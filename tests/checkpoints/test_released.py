"""Files with the names of facebookresearch/mae, made from a model of ours under keys written out by hand."""

from __future__ import annotations

import argparse

import pytest
import torch

import mae
from mae.checkpoints.load import autoencoder_from, encoder_from
from mae.checkpoints.read import read_checkpoint

OUTER = [
    "cls_token",
    "pos_embed",
    "patch_embed.proj.weight",
    "patch_embed.proj.bias",
    "norm.weight",
    "norm.bias",
]
DECODER_OUTER = {
    "mask_token": "decoder.mask_token",
    "decoder_pos_embed": "decoder.positions",
    "decoder_embed.weight": "decoder.embed.weight",
    "decoder_embed.bias": "decoder.embed.bias",
    "decoder_norm.weight": "decoder.norm.weight",
    "decoder_norm.bias": "decoder.norm.bias",
    "decoder_pred.weight": "decoder.predict.weight",
    "decoder_pred.bias": "decoder.predict.bias",
}
BLOCK = [
    f"{part}.{kind}"
    for part in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    for kind in ("weight", "bias")
]


def released_names(depth: int, decoder_depth: int) -> dict[str, str]:
    """Their names to ours."""
    names = {key: f"encoder.vit.{key}" for key in OUTER}
    names |= {f"blocks.{i}.{part}": f"encoder.vit.blocks.{i}.{part}" for i in range(depth) for part in BLOCK}
    if decoder_depth:
        names |= DECODER_OUTER
        names |= {
            f"decoder_blocks.{i}.{part}": f"decoder.blocks.{i}.{part}" for i in range(decoder_depth) for part in BLOCK
        }
    return names


@pytest.fixture
def model(tiny_autoencoder) -> mae.MaskedAutoencoder:
    """Widths of 64 channels a head in the encoder and 32 in the decoder, as the released models have."""
    return tiny_autoencoder(scattered=True, width=128, decoder_width=64)


def released(model: mae.MaskedAutoencoder, *, decoder: bool = True) -> dict[str, torch.Tensor]:
    state = model.state_dict()
    return {theirs: state[ours] for theirs, ours in released_names(2, 1 if decoder else 0).items()}


def test_a_file_with_decoder_reconstructs_as_the_model_it_was_made_from(model, random_plan, tmp_path):
    torch.save({"model": released(model)}, tmp_path / "mae_visualize.pth")

    loaded, report = autoencoder_from(read_checkpoint(tmp_path / "mae_visualize.pth"))

    assert report.left_out == ()
    assert report.loaded == sum(value.numel() for value in model.state_dict().values())
    images, plan = torch.randn(2, 3, 16, 16), random_plan(2, (4, 4))
    assert torch.equal(loaded(images, plan).prediction, model(images, plan).prediction)
    assert torch.equal(loaded(images, plan).loss, model(images, plan).loss)
    assert not loaded.encoder.vit.pos_embed.requires_grad


@pytest.mark.parametrize("normalize", [True, False])
def test_the_training_arguments_say_whether_pixels_are_normalised(model, tmp_path, normalize):
    arguments = argparse.Namespace(norm_pix_loss=normalize, blr=1.5e-4, model="mae_vit_base_patch16")
    torch.save({"model": released(model), "args": arguments, "epoch": 799}, tmp_path / "checkpoint-799.pth")

    assert mae.load_autoencoder(tmp_path / "checkpoint-799.pth").normalize_pixels is normalize


@pytest.mark.parametrize("wrapped", [True, False])
def test_an_encoder_only_file_encodes_as_the_model_it_was_made_from(model, tmp_path, wrapped):
    state = released(model, decoder=False)
    torch.save({"model": state} if wrapped else state, tmp_path / "mae_pretrain.pth")

    encoder, report = encoder_from(read_checkpoint(tmp_path / "mae_pretrain.pth"))

    assert report.left_out == ()
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(encoder.eval()(images), model.encoder.eval()(images))
    assert encoder.pixel_mean == (0.485, 0.456, 0.406)
    with pytest.raises(ValueError, match=r"mae_pretrain\.pth holds an encoder alone"):
        mae.load_autoencoder(tmp_path / "mae_pretrain.pth")


def test_the_widths_of_the_released_models_have_the_heads_of_the_paper(tmp_path):
    for name, width, heads in (("base", 768, 12), ("large", 1024, 16), ("huge", 1280, 16)):
        # One block is enough to tell, and small enough to write.
        donor = mae.create_autoencoder(
            "vit_base_patch16_224", 32, width=width, heads=heads, depth=1, mlp_ratio=0.125, decoder_depth=1
        )
        state = donor.state_dict()
        torch.save({theirs: state[ours] for theirs, ours in released_names(1, 1).items()}, tmp_path / f"{name}.pth")
        loaded = mae.load_autoencoder(tmp_path / f"{name}.pth")
        assert loaded.encoder.config["heads"] == heads
        assert loaded.decoder.blocks[0].attn.num_heads == 16


def test_a_classification_head_and_a_decoder_are_left_out_and_reported(model, tmp_path):
    state = {**released(model), "head.weight": torch.zeros(10, 128), "head.bias": torch.zeros(10)}
    torch.save({"model": state}, tmp_path / "finetuned.pth")

    encoder, report = encoder_from(read_checkpoint(tmp_path / "finetuned.pth"))

    assert set(report.left_out) == {"head.* (2)", "decoder.* (20)"}
    images = torch.randn(1, 3, 16, 16)
    assert torch.equal(encoder.eval()(images), model.encoder.eval()(images))


@pytest.mark.parametrize(
    "key", ["fc_norm.weight", "decoder_blocks.0.attn.relative", "blocks.0.attn.q_norm.weight", "epoch"]
)
def test_an_unknown_weight_is_refused_by_name(model, tmp_path, key):
    torch.save({"model": {**released(model), key: torch.ones(1)}}, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match=rf"odd\.pth: the weight '{key}'"):
        mae.load_autoencoder(tmp_path / "odd.pth")


@pytest.mark.parametrize("key", ["pos_embed", "norm.weight", "blocks.1.mlp.fc2.bias", "decoder_pred.bias"])
def test_a_missing_weight_is_refused(model, tmp_path, key):
    state = released(model)
    del state[key]
    torch.save({"model": state}, tmp_path / "torn.pth")
    with pytest.raises(ValueError, match=r"torn\.pth .*missing"):
        mae.load_autoencoder(tmp_path / "torn.pth")


@pytest.mark.parametrize("load", [mae.load_autoencoder, mae.load_encoder])
def test_a_grid_that_is_no_square_must_be_given(tiny_autoencoder, tmp_path, load):
    model = tiny_autoencoder(scattered=True, image_size=(8, 24), width=128, decoder_width=64)
    torch.save({"model": released(model)}, tmp_path / "wide.pth")

    with pytest.raises(ValueError, match=r"positions that make no square.*pass image_size=\(H, W\)"):
        load(tmp_path / "wide.pth")

    loaded = load(tmp_path / "wide.pth", image_size=(8, 24))
    encoder = loaded.encoder if load is mae.load_autoencoder else loaded
    images = torch.randn(1, 3, 8, 24)
    assert torch.equal(encoder.eval()(images), model.encoder.eval()(images))


def test_a_square_file_is_resampled_to_the_image_size_of_choice(model, tmp_path):
    torch.save({"model": released(model)}, tmp_path / "square.pth")

    encoder = mae.load_encoder(tmp_path / "square.pth", image_size=(16, 32))

    assert encoder.grid == (4, 8)
    table = encoder.vit.pos_embed[0, 1:].reshape(4, 8, 128)
    # The second half of the channels encodes the row and is the same in each column.
    torch.testing.assert_close(table[..., 64:], table[:, :1, 64:].expand(-1, 8, -1), atol=1e-5, rtol=0)


def test_learned_positions_of_a_timm_state_dict_stay_learned(tiny_autoencoder, tmp_path):
    encoder = tiny_autoencoder(scattered=True, width=128, positions="learned").encoder
    torch.save(encoder.vit.state_dict(), tmp_path / "timm.pth")

    loaded = mae.load_encoder(tmp_path / "timm.pth")

    assert loaded.vit.pos_embed.requires_grad
    assert torch.equal(loaded.vit.pos_embed, encoder.vit.pos_embed)


def test_tables_without_rows_for_class_and_register_tokens_load(tiny_autoencoder, tmp_path):
    encoder = tiny_autoencoder(
        scattered=True, width=128, positions="learned", options={"no_embed_class": True, "reg_tokens": 2}
    ).encoder
    torch.save(encoder.vit.state_dict(), tmp_path / "timm.pth")

    loaded = mae.load_encoder(tmp_path / "timm.pth")

    images = torch.randn(1, 3, 16, 16)
    assert torch.equal(loaded.eval()(images), encoder.eval()(images))
