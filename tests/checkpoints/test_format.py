from __future__ import annotations

import json
import pickle
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

import mae
from mae.checkpoints.load import autoencoder_from, encoder_from
from mae.checkpoints.read import read_checkpoint

KINDS = {
    "square": {},
    "rectangle, one channel": {"image_size": (8, 32), "in_channels": 1, "normalize_pixels": False},
    "learned positions, registers": {"positions": "learned", "options": {"reg_tokens": 2}},
    "no class token": {"name": "vit_base_patch16_siglip_gap_224"},
    "layer scale": {"name": "vit_small_patch14_reg4_dinov2", "mlp_ratio": 2.0},
}


def assert_same_weights(one: torch.nn.Module, other: torch.nn.Module) -> None:
    mine, theirs = one.state_dict(), other.state_dict()
    assert mine.keys() == theirs.keys()
    assert [key for key in mine if not torch.equal(mine[key], theirs[key])] == []


@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)
def test_an_autoencoder_comes_back_bit_for_bit(tiny_autoencoder, random_plan, tmp_path, changes):
    model = tiny_autoencoder(scattered=True, **changes)
    loaded = mae.load_autoencoder(mae.save(model, tmp_path / "model"))

    assert_same_weights(loaded, model)
    assert loaded.config == model.config
    images = torch.randn(2, model.encoder.in_channels, *model.encoder.image_size)
    plan = random_plan(2, model.grid)
    assert torch.equal(loaded(images, plan).loss, model(images, plan).loss)


@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)
def test_an_encoder_comes_back_bit_for_bit_from_a_file_with_or_without_decoder(tiny_autoencoder, tmp_path, changes):
    model = tiny_autoencoder(scattered=True, **changes)

    for saved in (model, model.encoder):
        assert_same_weights(mae.load_encoder(mae.save(saved, tmp_path / type(saved).__name__)), model.encoder)


def test_the_config_is_plain_json_and_the_weights_are_named_as_in_the_model(tiny_autoencoder, tmp_path):
    model = tiny_autoencoder(options={"reg_tokens": 2})
    mae.save(model, tmp_path)

    config = json.loads((tmp_path / "config.json").read_text())
    assert config["encoder"]["image_size"] == [16, 16]
    assert config["encoder"]["options"] == {"reg_tokens": 2}
    assert config["decoder"]["width"] == 16
    assert config["normalize_pixels"] is True
    assert load_file(tmp_path / "model.safetensors").keys() == model.state_dict().keys()
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}


def test_saving_again_replaces_what_was_there(tiny_autoencoder, tmp_path):
    mae.save(tiny_autoencoder(image_size=(8, 32)), tmp_path)
    model = tiny_autoencoder(scattered=True)
    mae.save(model, tmp_path)
    assert_same_weights(mae.load_autoencoder(tmp_path), model)


def test_pixel_statistics_travel_with_the_weights(tiny_autoencoder, tmp_path):
    model = tiny_autoencoder()
    model.encoder.pixel_mean, model.encoder.pixel_std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    mae.save(model, tmp_path / "model")
    mae.save(model.encoder, tmp_path / "encoder")

    for encoder in (
        mae.load_autoencoder(tmp_path / "model").encoder,
        mae.load_encoder(tmp_path / "model"),
        mae.load_encoder(tmp_path / "encoder"),
    ):
        assert encoder.pixel_mean == (0.1, 0.2, 0.3)
        assert encoder.pixel_std == (0.4, 0.5, 0.6)


def test_pixel_statistics_stay_unknown_where_nobody_gave_them(tiny_autoencoder, tmp_path):
    encoder = mae.load_encoder(mae.save(tiny_autoencoder(), tmp_path))
    assert (encoder.pixel_mean, encoder.pixel_std) == (None, None)


def test_the_report_counts_the_parameters_and_names_what_was_left_out(tiny_autoencoder, tmp_path):
    model = tiny_autoencoder()
    mae.save(model, tmp_path)

    _, whole = autoencoder_from(read_checkpoint(tmp_path))
    _, part = encoder_from(read_checkpoint(tmp_path))

    assert whole.left_out == ()
    assert whole.loaded == sum(value.numel() for value in model.state_dict().values())
    decoder_keys = len(model.decoder.state_dict())
    assert part.left_out == (f"decoder.* ({decoder_keys})",)
    assert part.loaded == sum(value.numel() for value in model.encoder.state_dict().values())
    assert f"{part.loaded:,} parameters" in str(part)
    assert f"left out: decoder.* ({decoder_keys})" in str(part)


@pytest.mark.parametrize("image_size", [(16, 16), (32, 8), 24])
def test_positions_are_resampled_from_the_stored_grid(tiny_autoencoder, tmp_path, image_size):
    # 2x8 and 4x4 have the same number of patches: a loader that guesses a square reads columns as rows.
    model = tiny_autoencoder(image_size=(8, 32), positions="learned")
    with torch.no_grad():
        model.encoder.vit.pos_embed[0, 1:] = torch.arange(8.0).repeat(2).unsqueeze(-1)
    mae.save(model, tmp_path)

    encoder = mae.load_encoder(tmp_path, image_size=image_size)

    Gh, Gw = encoder.grid
    assert (4 * Gh, 4 * Gw) == ((image_size, image_size) if isinstance(image_size, int) else image_size)
    columns = encoder.vit.pos_embed[0, 1:, 0].reshape(Gh, Gw)
    assert torch.allclose(columns, columns[:1].expand(Gh, -1), atol=1e-5)
    assert (columns[0].diff() > 0.5).all()
    assert torch.equal(encoder.vit.pos_embed[0, 0], model.encoder.vit.pos_embed[0, 0])
    assert torch.equal(encoder.vit.norm.weight, model.encoder.vit.norm.weight)
    assert encoder(torch.randn(1, 3, 4 * Gh, 4 * Gw)).shape == (1, 1 + Gh * Gw, 32)


def test_the_stored_size_as_image_size_changes_nothing(tiny_autoencoder, tmp_path):
    model = tiny_autoencoder(scattered=True, image_size=(8, 32))
    mae.save(model, tmp_path)
    assert_same_weights(mae.load_encoder(tmp_path, image_size=(8, 32)), model.encoder)


def test_an_encoder_alone_cannot_reconstruct_and_the_error_says_what_can(tiny_autoencoder, tmp_path):
    mae.save(tiny_autoencoder().encoder, tmp_path)
    with pytest.raises(ValueError, match=r"holds an encoder alone.*checkpoints/last\.ckpt"):
        mae.load_autoencoder(tmp_path)


def run_checkpoint(model: mae.MaskedAutoencoder, **changes) -> dict:
    """What Lightning writes for a pretraining run."""
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    config = {**model.config, "pixel_mean": [0.5] * 3, "pixel_std": [0.25] * 3}
    return {
        "pytorch-lightning_version": "2.6.0",
        "state_dict": state,
        "hyper_parameters": {"model": config},
        **changes,
    }


@pytest.mark.parametrize("given", ["checkpoints/last.ckpt", "checkpoints", "."])
def test_a_run_loads_from_its_file_or_its_folder(tiny_autoencoder, tmp_path, given):
    model = tiny_autoencoder(scattered=True)
    (tmp_path / "checkpoints").mkdir()
    torch.save(run_checkpoint(model), tmp_path / "checkpoints" / "last.ckpt")

    loaded = mae.load_autoencoder(tmp_path / given)

    assert_same_weights(loaded, model)
    assert loaded.encoder.pixel_mean == (0.5, 0.5, 0.5)
    assert_same_weights(mae.load_encoder(tmp_path / given), model.encoder)


def test_a_lightning_checkpoint_of_another_project_is_refused(tiny_autoencoder, tmp_path):
    torch.save(run_checkpoint(tiny_autoencoder(), hyper_parameters={"lr": 0.1}), tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"other\.ckpt is a Lightning checkpoint of another project"):
        mae.load_encoder(tmp_path / "other.ckpt")


class Trap:
    """Runs code when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_loading_runs_no_code_of_the_file(tmp_path):
    torch.save({"model": Trap(str(tmp_path / "sprung"))}, tmp_path / "trap.pth")
    (tmp_path / "trap.ckpt").write_bytes(pickle.dumps(Trap(str(tmp_path / "sprung")), protocol=2))

    for name in ("trap.pth", "trap.ckpt"):
        with pytest.raises(ValueError, match="not a checkpoint that torch can read safely"):
            mae.load_encoder(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("load", [mae.load_autoencoder, mae.load_encoder])
def test_a_path_with_nothing_behind_it_is_named(load, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*nowhere: give a run folder"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes.txt", "Not a checkpoint, but a shopping list.\n"),
        ("epochs.csv", "epoch,loss\n1,2.5\n"),
        ("all.txt", "all the notes\n"),
        ("empty.pth", ""),
        ("weights.safetensors", "These are no weights."),
    ],
)
def test_a_text_file_is_refused_by_name(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        mae.load_encoder(tmp_path / name)


@pytest.mark.parametrize("content", [{"epoch": 3}, {"model": {}}, {"model": {"epoch": 3}}, [torch.zeros(3)], "words"])
def test_a_file_without_a_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth is not a checkpoint"):
        mae.load_encoder(tmp_path / "other.pth")


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ('{"model_type": "bert"}', "neither a model of mae.save nor a ViTMAE of transformers"),
        ("{not json", "is not JSON"),
        ("[1, 2]", "config.json|neither"),
    ],
)
def test_a_folder_of_another_project_is_refused(tmp_path, config, says):
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ValueError, match=says):
        mae.load_encoder(tmp_path)


def test_a_folder_without_anything_to_load_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"neither config\.json nor checkpoints/last\.ckpt"):
        mae.load_encoder(tmp_path)


def test_broken_weights_beside_a_good_config_are_refused(tiny_autoencoder, tmp_path):
    mae.save(tiny_autoencoder(), tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"model\.safetensors|not a checkpoint"):
        mae.load_encoder(tmp_path)


def change_weights(folder, change) -> None:
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda state: state.pop("encoder.vit.norm.weight"), "weights missing: .*norm.weight"),
        (lambda state: state.update({"encoder.vit.fc_norm.weight": torch.ones(32)}), "unknown here: .*fc_norm.weight"),
        (
            lambda state: state.update({"encoder.vit.norm.weight": torch.ones(31)}),
            r"of another shape: .*norm.weight is \(31,\), not \(32,\)",
        ),
    ],
    ids=["missing", "left over", "another shape"],
)
@pytest.mark.parametrize("load", [mae.load_autoencoder, mae.load_encoder])
def test_weights_that_do_not_fit_exactly_are_refused_by_name(tiny_autoencoder, tmp_path, load, change, says):
    mae.save(tiny_autoencoder(), tmp_path)
    change_weights(tmp_path, change)
    with pytest.raises(ValueError, match=says):
        load(tmp_path)


def test_a_long_list_of_missing_weights_is_cut_short(tiny_autoencoder, tmp_path):
    mae.save(tiny_autoencoder(), tmp_path)

    def drop_a_block(state: dict) -> None:
        for key in [key for key in state if "vit.blocks.1." in key]:
            del state[key]

    change_weights(tmp_path, drop_a_block)
    with pytest.raises(ValueError, match=r"missing: .* and 9 more"):
        mae.load_autoencoder(tmp_path)


def test_the_decoders_fixed_positions_may_be_missing_and_nothing_else(tiny_autoencoder, tmp_path):
    model = tiny_autoencoder(scattered=True)
    mae.save(model, tmp_path)
    change_weights(tmp_path, lambda state: state.pop("decoder.positions"))
    assert_same_weights(mae.load_autoencoder(tmp_path), model)


def test_positions_that_are_all_zero_are_warned_about(tiny_autoencoder, tmp_path, caplog):
    model = tiny_autoencoder()
    with torch.no_grad():
        model.encoder.vit.pos_embed.zero_()
    mae.save(model, tmp_path)

    for load in (mae.load_autoencoder, mae.load_encoder):
        caplog.clear()
        load(tmp_path)
        assert "every row of encoder.vit.pos_embed is zero" in caplog.text


TRAP = """
from mae.masking.samplers import RandomMasking
called = []
class Meta(type):
    def __call__(cls, *given, **options):
        called.append(cls.__name__)
        return super().__call__(*given, **options)
class OfNoBase(metaclass=Meta): ...
class OfAnotherBase(RandomMasking):
    def __init__(self, *given, **options): called.append("OfAnotherBase")
def factory(*given, **options): called.append("factory")
class Callable_:
    def __call__(self, *given, **options): called.append("instance")
instance = Callable_()
"""


@pytest.mark.parametrize("part", ["encoder", "decoder", "objective"])
def test_a_path_in_a_checkpoint_leads_to_a_class_of_its_base_and_nothing_else_is_called(
    tiny_autoencoder, tmp_path, monkeypatch, part
):
    (tmp_path / "trap_of_others.py").write_text(TRAP)
    monkeypatch.syspath_prepend(str(tmp_path))
    saved = mae.save(tiny_autoencoder(), tmp_path / "model")
    good = json.loads((saved / "config.json").read_text())
    run = tmp_path / "last.ckpt"
    for name in ("OfNoBase", "OfAnotherBase", "factory", "instance", "called.append"):
        own = {"_target_": f"trap_of_others.{name}"}
        config = {**good, part: {**good.get(part, {}), **own} if part == "encoder" else own}
        (saved / "config.json").write_text(json.dumps(config))
        torch.save(
            {
                "pytorch-lightning_version": "2",
                "hyper_parameters": {"model": config},
                "state_dict": {f"model.{key}": value for key, value in load_file(saved / "model.safetensors").items()},
            },
            run,
        )
        for path in (saved, run):
            with pytest.raises(ValueError, match=r"is no class that derives from mae\.(models|objectives)\."):
                mae.load_autoencoder(path)
    assert sys.modules["trap_of_others"].called == []


def test_an_autoencoder_is_not_read_at_another_size_than_it_was_trained_at(tiny_autoencoder, tmp_path):
    mae.save(tiny_autoencoder(), tmp_path)
    assert mae.load_autoencoder(tmp_path, image_size=16).encoder.image_size == (16, 16)
    with pytest.raises(ValueError, match="was trained at 16x16: leave image_size=24 out"):
        mae.load_autoencoder(tmp_path, image_size=24)
