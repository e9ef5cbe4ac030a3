"""What is read of a path, and how much of it."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

import mae
from mae.checkpoints.format import describe
from mae.checkpoints.read import read_checkpoint, read_header, read_pickle

MAPS = Path("/proc/self/maps")


def write_run(folder, name, module, **hyper_parameters):
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    content = {
        "pytorch-lightning_version": "2.5",
        "epoch": 3,
        "global_step": 17,
        "hyper_parameters": hyper_parameters,
        "state_dict": {f"model.{key}": value for key, value in module.state_dict().items()},
    }
    torch.save(content, folder / "checkpoints" / name)
    return folder / "checkpoints" / name


def moved(model, by):
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(by)
    return other


def first_bias(encoder):
    return encoder.vit.blocks[0].attn.qkv.bias[0].item()


def test_a_finished_second_stage_gives_the_encoder_that_its_score_is_of(tiny_autoencoder, tmp_path):
    encoder = tiny_autoencoder().encoder
    task = {"model": describe(encoder), "protocol": {"name": "finetune"}, "classes": ["a"]}
    model = torch.nn.Module()
    for name, by in (("last.ckpt", 1.0), ("best.ckpt", 2.0)):
        model.encoder = moved(encoder, by)
        write_run(tmp_path, name, model, **task)

    # Interrupted before the end there is no encoder/, and the best on validation is what would be in it.
    assert first_bias(mae.load_encoder(tmp_path)) == 2.0
    mae.save(moved(encoder, 3.0), tmp_path / "encoder")
    assert first_bias(mae.load_encoder(tmp_path)) == 3.0
    (tmp_path / "checkpoints" / "best.ckpt").unlink()
    (tmp_path / "encoder" / "config.json").unlink()
    assert first_bias(mae.load_encoder(tmp_path)) == 1.0


def test_of_pretraining_encoder_and_autoencoder_are_those_of_the_end(tiny_autoencoder, tmp_path):
    model = tiny_autoencoder()
    write_run(tmp_path, "best.ckpt", moved(model, 1.0), model=describe(model))
    write_run(tmp_path, "last.ckpt", moved(model, 2.0), model=describe(model))

    assert first_bias(mae.load_encoder(tmp_path)) == first_bias(mae.load_autoencoder(tmp_path).encoder) == 2.0
    mae.save(moved(model, 2.0).encoder, tmp_path / "encoder")
    assert first_bias(mae.load_encoder(tmp_path)) == first_bias(mae.load_autoencoder(tmp_path).encoder) == 2.0
    (tmp_path / "checkpoints" / "last.ckpt").unlink()
    assert first_bias(mae.load_autoencoder(tmp_path).encoder) == 1.0


def test_the_whitening_of_a_finished_run_is_taken_by_an_autoencoder_of_the_same_weights_alone(
    tiny_autoencoder, tmp_path
):
    model = tiny_autoencoder()
    write_run(tmp_path, "last.ckpt", model, model=describe(model))
    for by, taken in ((0.0, True), (1.0, False)):
        finished = moved(model.encoder, by)
        finished.fit_whitening(torch.randn(50, 32))
        mae.save(finished, tmp_path / "encoder")
        loaded = mae.load_autoencoder(tmp_path).encoder.whitening
        assert (loaded is not None) is taken
        if loaded:
            assert torch.equal(loaded.matrix, finished.whitening.matrix)
    assert mae.load_autoencoder(tmp_path / "checkpoints" / "last.ckpt").encoder.whitening is None


def test_a_header_is_read_without_a_tensor(tiny_autoencoder, tmp_path):
    model = tiny_autoencoder()
    path = write_run(tmp_path, "last.ckpt", model, model=describe(model), seed=5)

    header = read_header(path)

    assert header == {"epoch": 3, "global_step": 17, "hyper_parameters": {"model": describe(model), "seed": 5}}
    assert header["hyper_parameters"]["model"] == read_checkpoint(path).config


@pytest.mark.skipif(not MAPS.is_file(), reason="Linux alone says what is mapped")
def test_tensors_are_mapped_from_the_file_and_not_copied(tmp_path):
    torch.save({"state_dict": {"weight": torch.arange(1000.0)}}, tmp_path / "new.ckpt")
    tensor = read_pickle(tmp_path / "new.ckpt")["state_dict"]["weight"]
    assert str(tmp_path / "new.ckpt") in MAPS.read_text()
    assert tensor.tolist() == list(range(1000))


def test_files_of_before_zip_archives_are_read_too(tmp_path):
    torch.save({"weight": torch.arange(10.0)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert read_pickle(tmp_path / "old.pth")["weight"].tolist() == list(range(10))


def test_pretraining_without_a_decoder_ends_with_its_last_weights_too(tiny_autoencoder, tmp_path):
    encoder = tiny_autoencoder().encoder
    described = {**describe(encoder), "objective": {"name": "masked_patch_prediction", "target": "mean_colour"}}
    model = torch.nn.Module()
    for name, by in (("last.ckpt", 1.0), ("best.ckpt", 2.0)):
        model.encoder = moved(encoder, by)
        write_run(tmp_path, name, model, model=described)

    assert first_bias(mae.load_encoder(tmp_path)) == 1.0
