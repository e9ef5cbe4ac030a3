"""The models beside MAE, through the two scripts: trained, saved, loaded, probed, and refused where they do not fit."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from mae.checkpoints.load import load_autoencoder, load_encoder
from mae.config.composing import compose
from mae.models.backbones.convnet import ConvNet
from mae.models.backbones.encoder import Encoder
from mae.models.backbones.vt_resnet import VTResNet
from mae.run import pretrain
from tests.run.test_stopping import assert_same, run
from tests.runs import BARE, ENCODER, few_digits, job

COLOUR = ("objective=masked_patch_prediction", "data.channels=3")


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a finished run of masked patch prediction."""
    folder = tmp_path_factory.mktemp("predictor") / "run"
    job("pretrain", folder, *COLOUR, "epochs=8", "optim.base_lr=0.02").run()
    return folder


def test_masked_patch_prediction_is_measured_against_the_frequencies_of_colours(predictor: Path) -> None:
    results = json.loads((predictor / "results.json").read_text())
    assert results["objective"] == "masked_patch_prediction"
    assert results["val_loss"] < results["label_entropy"] < math.log(512)
    assert {"knn_top1", "knn_top1_random", "probe_top1", "rankme"} <= results.keys()
    assert (predictor / "pictures" / "reconstructions.png").is_file()
    assert "mask embedding" in (predictor / "report.html").read_text(encoding="utf-8")


def test_its_encoder_goes_on_as_that_of_an_autoencoder(predictor: Path, tmp_path: Path) -> None:
    given = (f"checkpoint={predictor}", "protocol=linear_probe", "epochs=10")
    results = job("finetune", tmp_path / "run", *given).run()
    assert results["test_top1"] > 1.5 * results["largest_class_share"]
    assert isinstance(load_encoder(predictor), Encoder)
    with pytest.raises(ValueError, match="trained by masked_patch_prediction, which has no decoder"):
        load_autoencoder(predictor / "checkpoints" / "last.ckpt")


@pytest.mark.slow
def test_a_stopped_prediction_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    given = (*COLOUR, *BARE, *few_digits(), "epochs=3")
    images = run("pretrain", tmp_path / "whole", *given)
    before = run("pretrain", tmp_path / "run", *given, stop_after=17)
    assert before + run("pretrain", tmp_path / "run", "resume=true", "epochs=3") == images
    assert_same(tmp_path / "whole", tmp_path / "run")


NETWORKS = {
    "resnet": (("model.name=resnet10t", "data.image_size=32"), ConvNet),
    "vt_resnet": (("model=vt_resnet18", "model.stem=small", "model.tokens=4", "model.token_width=32"), VTResNet),
    "hybrid": (("model=hybrid_32", "model.cnn.name=resnet10t", *ENCODER, "data.image_size=32"), Encoder),
}


@pytest.mark.parametrize(
    ("overrides", "kind"),
    [pytest.param(*given, id=name, marks=[pytest.mark.slow] * (name != "hybrid")) for name, given in NETWORKS.items()],
)
def test_networks_are_trained_from_scratch_and_probed(overrides: tuple[str, ...], kind: type, tmp_path: Path) -> None:
    given = (
        "checkpoint=null",
        "protocol=finetune",
        "protocol.layer_decay=1",
        "epochs=1",
        *few_digits(),
        *overrides,
    )
    results = job("finetune", tmp_path / "run", *given).run()
    encoder = load_encoder(tmp_path / "run")
    assert isinstance(encoder, kind)
    images = torch.randn(2, encoder.in_channels, *encoder.image_size)
    again = load_encoder(tmp_path / "run").eval()
    assert torch.equal(encoder.eval()(images), again(images))

    probe = job("finetune", tmp_path / "probe", *few_digits(), f"checkpoint={tmp_path / 'run'}", "epochs=1").run()
    assert probe["trained_parameters"] == 10 * (encoder.width + 1)
    scored = job("finetune", tmp_path / "scored", "evaluate_only=true", f"checkpoint={tmp_path / 'run'}").run()
    assert scored["test_top1"] == results["test_top1"]


@pytest.mark.slow
def test_a_hybrid_is_pretrained_on_pixels(tmp_path: Path) -> None:
    small = ("model=hybrid_32", "model.cnn.name=resnet10t", "data.image_size=32", "epochs=1", "batch_size=256")
    results = job("pretrain", tmp_path / "run", *small).run()
    assert 0 < results["val_loss"] < 2


@pytest.mark.parametrize(
    ("stage", "overrides", "says"),
    [
        (
            "pretrain",
            ("objective=masked_patch_prediction",),
            r"predicts colours, and data\.channels=1: data\.channels=3 shows grey",
        ),
        (
            "pretrain",
            (*COLOUR, "objective.target=hue"),
            r"objective\.target='hue' is unknown: choose one of mean_colour",
        ),
        ("pretrain", (*COLOUR, "data.bits=16"), r"counts colours of 8 bits, and data\.bits=16: data\.bits=8 reads"),
        (
            "pretrain",
            (*COLOUR, "masking.name=random"),
            r"masking=random does not fit objective=masked_patch_prediction: it takes masking=corruption",
        ),
        (
            "pretrain",
            ("masking=corruption",),
            "masking=corruption does not fit objective=pixels: it takes masking=random",
        ),
        ("pretrain", ("objective.name=colour",), r"objective\.name='colour' is unknown: choose one of pixels"),
        (
            "pretrain",
            (*COLOUR, "model=hybrid_32", "data.image_size=32"),
            r"masked ones would leak through its receptive field; choose objective=pixels",
        ),
        (
            "pretrain",
            ("model.name=vit_small_r26_s32_224", "data.image_size=32"),
            r"leaves vit_small_r26_s32_224 one token.*model=hybrid_32",
        ),
        (
            "finetune",
            ("checkpoint=null", "protocol=finetune", "model=vt_resnet18", "data.image_size=32"),
            r"model\.tokens=16 does not fit a feature map of 2x2 pixels: choose 1 to 4, larger images, or model\.stem=small",
        ),
        (
            "finetune",
            ("checkpoint=null", "protocol=finetune", "model.name=resnet18", "model.width=64", "data.image_size=32"),
            r"model\.width=64 is not an option of model=resnet18",
        ),
        (
            "finetune",
            ("checkpoint=null", "protocol=partial_finetune", "model.name=resnet18", "data.image_size=32"),
            r"protocol\.blocks=1 tunes the last blocks of a ViT, and resnet18 has none",
        ),
        (
            "finetune",
            (
                "checkpoint=null",
                "protocol=finetune",
                "protocol.pool=token",
                "model.name=resnet18",
                "data.image_size=32",
            ),
            "pool=token needs a class token, which resnet18 has not",
        ),
        (
            "finetune",
            ("checkpoint=null", "model.name=resnet18", "data.image_size=32", "trainer.grad_checkpointing=true"),
            r"trainer\.grad_checkpointing=true is for ViTs, not for resnet18",
        ),
        (
            "finetune",
            ("checkpoint=null", "protocol=finetune", "model.name=vgg11", "data.image_size=32"),
            r"model\.name='vgg11' has no stochastic depth: protocol\.drop_path=0",
        ),
        (
            "finetune",
            ("checkpoint=null", "protocol=finetune", "model.name=resnet10t", "data.image_size=32", "batch_size=1"),
            "gives a device one image, and the BatchNorm of resnet10t needs two",
        ),
        ("finetune", ("checkpoint=null", "optim.schedule=null"), r"optim\.schedule=null is not a value"),
        ("pretrain", (*COLOUR, "masking.masked=null"), r"masking\.masked=null is not a value"),
        (
            "finetune",
            ("checkpoint=null", "protocol=finetune", "protocol.head=conv"),
            r"protocol\.head='conv' is unknown: choose one of linear, mlp",
        ),
        (
            "finetune",
            ("checkpoint=null", "optim.schedule=linear"),
            r"optim\.schedule='linear' is unknown: choose one of cosine, steps",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_work_starts(
    stage: str, overrides: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=says):
        job(stage, tmp_path / "run", *overrides)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["vt_resnet18", "resnet18"])
def test_networks_without_patches_are_not_pretrained_and_what_trains_them_is_said(name: str) -> None:
    with pytest.raises(ValueError, match=rf"'{name}' is no ViT.*train_finetune.py checkpoint=null"):
        pretrain.prepare(compose("pretrain", [f"model={name}", "trainer.accelerator=cpu"]))


@pytest.mark.slow
def test_checkpointing_a_hybrid_changes_its_speed_alone(tmp_path: Path) -> None:
    small = ("model=hybrid_32", "model.cnn.name=resnet10t", "data.image_size=32", "epochs=1", "batch_size=512")
    bare = ("callbacks.knn=false", "callbacks.probe=false", "callbacks.rank=false", "callbacks.pictures=0")
    states = []
    for name, flag in (("a", "false"), ("b", "true")):
        prepared = job("pretrain", tmp_path / name, *small, *bare, f"trainer.grad_checkpointing={flag}")
        prepared.run()
        states.append(prepared.module.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0] if "num_batches" in key)
    ignored = prepared.module._ddp_params_and_buffers_to_ignore
    assert "mean" in ignored and not any("running" in key for key in ignored)
