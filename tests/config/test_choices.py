"""Defaults that fit: pure functions of what was seen."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
from mae.config.checks import leaves

from mae.config.choices import (
    Choices,
    Machine,
    choose_baselines,
    choose_finetuning,
    choose_images_and_model,
    choose_loading,
    choose_pretraining,
    preset_for,
)
from mae.config.composing import compose, load_preset
from mae.data.inspection import Inspection

LAPTOP = Machine(accelerated=False, cores=4)
SERVER = Machine(accelerated=True, cores=32)


def look(side: int, count: int, *, channels: int = 3, in_memory: bool = False) -> Inspection:
    return Inspection(count, channels, side, side, side, in_memory)


DIGITS = look(8, 1293, channels=1, in_memory=True)
DRAWINGS = look(28, 54_000, channels=1, in_memory=True)
THUMBNAILS = look(64, 90_000)
PHOTOGRAPHS = look(3000, 2000)  # 12 megapixels: 4000 x 3000
MANY_PHOTOGRAPHS = look(400, 1_281_167)


def chosen(seen: Inspection, machine: Machine, overrides: tuple[str, ...] = ()) -> tuple[dict[str, Any], Choices]:
    """Return the pretraining config that the rules complete, flat, and the choices."""
    choices = Choices(compose("pretrain", overrides))
    choose_images_and_model(choices, seen, machine, load_preset)
    choose_loading(choices, seen, machine, devices=1)
    choose_pretraining(choices, seen.count, machine)
    return leaves(choices.config), choices


@pytest.mark.parametrize("machine", [LAPTOP, SERVER])
def test_drawings_and_photographs_get_different_recipes(machine: Machine) -> None:
    drawings, photographs = chosen(DRAWINGS, machine)[0], chosen(PHOTOGRAPHS, machine)[0]
    for key in ("data.image_size", "data.channels", "data.flip", "model.patch_size", "model.width", "batch_size"):
        assert drawings[key] != photographs[key], key


def test_drawings_keep_their_size_and_colour_and_are_not_mirrored() -> None:
    config = chosen(DRAWINGS, LAPTOP)[0]
    assert (config["data.image_size"], config["data.channels"]) == (28, 1)
    # A mirrored 2 is no 2.
    assert config["data.flip"] is False


def test_photographs_get_the_size_and_crops_of_the_paper() -> None:
    config = chosen(PHOTOGRAPHS, SERVER)[0]
    assert (config["data.image_size"], config["model.patch_size"], config["data.channels"]) == (224, 16, 3)
    assert (config["data.flip"], config["data.min_scale"]) == (True, 0.2)


def test_more_images_and_a_faster_machine_get_a_larger_model() -> None:
    widths = [
        chosen(*case)[0]["model.width"]
        for case in ((PHOTOGRAPHS, LAPTOP), (PHOTOGRAPHS, SERVER), (MANY_PHOTOGRAPHS, SERVER))
    ]
    assert widths == sorted(set(widths))
    assert chosen(MANY_PHOTOGRAPHS, SERVER)[0]["model.name"] == "vit_base_patch16_224"


def test_large_batches_take_the_learning_rate_of_the_paper() -> None:
    config = chosen(MANY_PHOTOGRAPHS, SERVER)[0]
    assert (config["batch_size"], config["optim.base_lr"]) == (4096, 1.5e-4)


@pytest.mark.parametrize("machine", [LAPTOP, SERVER])
@pytest.mark.parametrize("side", [1, 8, 23, 24, 28, 31, 32, 47, 48, 64, 111, 112, 224, 3000])
def test_the_patch_divides_the_size_and_the_grid_leaves_something_to_predict(side: int, machine: Machine) -> None:
    config = chosen(look(side, 10_000), machine)[0]
    assert config["data.image_size"] % config["model.patch_size"] == 0
    patches = (config["data.image_size"] // config["model.patch_size"]) ** 2
    assert 16 <= patches <= 256
    assert config["model.width"] % config["model.heads"] == 0
    assert config["decoder.width"] % config["decoder.heads"] == 0


def test_no_rule_ever_asks_for_a_size_far_above_the_images() -> None:
    for side in range(8, 400):
        assert preset_for(side, 1000, SERVER)[1] <= 2 * side


@pytest.mark.parametrize("seen", [DIGITS, DRAWINGS, THUMBNAILS, PHOTOGRAPHS, MANY_PHOTOGRAPHS])
@pytest.mark.parametrize("machine", [LAPTOP, SERVER])
def test_everything_is_chosen_and_fits_together(seen: Inspection, machine: Machine) -> None:
    config = chosen(seen, machine)[0]
    may_stay_null = {"run_dir", "data.root", "data.mean", "data.std", "optim.clip_norm"}
    assert {key for key, value in config.items() if value is None} <= may_stay_null
    assert config["batch_size"] <= seen.count
    # So that the last epoch is validated, and best.ckpt and last.ckpt are of validated epochs.
    assert config["epochs"] % config["trainer.validate_every"] == 0
    assert 0 < config["optim.warmup_epochs"] < config["epochs"]


@pytest.mark.parametrize("epochs", [1, 2, 7, 40, 97, 390, 400, 1600])
def test_validations_divide_the_epochs_into_about_twenty_or_more(epochs: int) -> None:
    config = chosen(DIGITS, LAPTOP, (f"epochs={epochs}",))[0]
    assert epochs % config["trainer.validate_every"] == 0
    assert epochs / config["trainer.validate_every"] >= min(epochs, 20)


@pytest.mark.parametrize("count", [2, 9, 60, 1293, 54_000])
def test_a_batch_is_never_more_than_the_images(count: int) -> None:
    assert 1 <= chosen(look(28, count), LAPTOP)[0]["batch_size"] <= count


GIVEN = {
    "data.image_size": 48,
    "data.channels": 1,
    "data.min_scale": 0.5,
    "data.flip": False,
    "data.num_workers": 3,
    "batch_size": 24,
    "epochs": 7,
    "optim.base_lr": 0.125,
    "optim.warmup_epochs": 2,
    "trainer.validate_every": 7,
    "model.patch_size": 12,
    "model.width": 60,
    "model.depth": 3,
    "model.heads": 5,
    "decoder.width": 36,
    "decoder.depth": 1,
    "decoder.heads": 2,
}


@pytest.mark.parametrize("seen", [DRAWINGS, MANY_PHOTOGRAPHS])
@pytest.mark.parametrize("machine", [LAPTOP, SERVER])
def test_whatever_is_given_is_kept(seen: Inspection, machine: Machine) -> None:
    config, choices = chosen(seen, machine, tuple(f"{key}={value}" for key, value in GIVEN.items()))
    assert {key: config[key] for key in GIVEN} == GIVEN
    assert not {choice.key for choice in choices.made} & set(GIVEN)


@pytest.mark.parametrize(
    ("key", "value"), [("data.flip", "false"), ("data.num_workers", "0"), ("optim.base_lr", "0.0")]
)
def test_values_that_python_takes_for_nothing_are_kept_too(key: str, value: str) -> None:
    config = chosen(MANY_PHOTOGRAPHS, SERVER, (f"{key}={value}",))[0]
    assert config[key] is not None
    assert not config[key]


def test_later_choices_follow_from_given_values() -> None:
    small = chosen(PHOTOGRAPHS, SERVER, ("data.image_size=32",))[0]
    assert small["model.patch_size"] == 4
    # A rectangle's shorter side decides.
    rectangle = chosen(PHOTOGRAPHS, SERVER, ("data.image_size=[32,64]",))[0]
    assert rectangle["model.patch_size"] == 4
    rates = [chosen(DRAWINGS, LAPTOP, (f"batch_size={batch}",))[0]["optim.base_lr"] for batch in (16, 64, 256)]
    # lr = base_lr * batch / 256 then grows with the square root of the batch.
    assert rates == sorted(rates, reverse=True)


def test_a_named_model_is_not_mixed_with_a_preset() -> None:
    config = chosen(PHOTOGRAPHS, LAPTOP, ("model=base",))[0]
    assert (config["model.name"], config["model.width"], config["decoder.width"]) == ("vit_base_patch16_224", 768, 512)


def test_every_choice_gives_its_reason() -> None:
    config, choices = chosen(PHOTOGRAPHS, LAPTOP)
    keys = {choice.key for choice in choices.made}
    assert {"data.image_size", "model", "data.channels", "data.flip", "batch_size", "epochs", "optim.base_lr"} <= keys
    for choice in choices.made:
        assert len(choice.reason) > 3
        assert str(choice) == f"{choice.key}={choice.value}: {choice.reason}"
        if choice.key in config:
            assert config[choice.key] == choice.value


def test_workers_are_few_enough_for_the_cores_and_the_devices() -> None:
    for cores in (1, 2, 8, 64):
        for devices in (1, 4):
            for seen in (DIGITS, PHOTOGRAPHS):
                choices = Choices(compose("pretrain"))
                choose_loading(choices, seen, Machine(True, cores), devices)
                workers = choices.get("data.num_workers")
                assert 0 <= workers * devices <= max(devices, cores)


def test_images_in_memory_need_no_workers_on_a_cpu() -> None:
    assert chosen(DIGITS, LAPTOP)[0]["data.num_workers"] == 0


@functools.cache
def composed(protocol: str) -> dict[str, Any]:
    return compose("finetune", ["checkpoint=null", f"protocol={protocol}"])


def second_stage(count: int, machine: Machine, protocol: str = "linear_probe", **given: Any) -> dict[str, Any]:
    """Return the config that the rules complete for so many labelled images, flat; ``optim__name`` is optim.name."""
    choices = Choices(copy.deepcopy(composed(protocol)))
    for key, value in given.items():
        group, _, leaf = key.rpartition("__")
        (choices.config[group] if group else choices.config)[leaf] = value
    choose_finetuning(choices, count, machine)
    choose_baselines(choices, count, machine)
    return leaves(choices.config)


@pytest.mark.parametrize("count", [2, 50, 999, 1000, 54_000])
@pytest.mark.parametrize("protocol", ["linear_probe", "mlp_probe", "attentive_probe", "partial_finetune", "finetune"])
@pytest.mark.parametrize("machine", [LAPTOP, SERVER])
def test_finetuning_choices_fit_the_labels(count: int, protocol: str, machine: Machine) -> None:
    config = second_stage(count, machine, protocol)
    # BatchNorm in the probe needs two images a batch.
    assert 2 <= config["batch_size"] <= count
    assert config["epochs"] % config["trainer.validate_every"] == 0
    assert {key for key, value in config.items() if value is None and key.startswith(("protocol.", "optim."))} <= {
        *("optim.clip_norm", "protocol.hidden", "protocol.heads")
    }


def test_finetuning_keeps_what_is_given() -> None:
    choices = Choices(compose("finetune", ["batch_size=10", "epochs=3", "optim.base_lr=0.5", "optim.warmup_epochs=1"]))
    choose_finetuning(choices, 500, LAPTOP)
    config = leaves(choices.config)
    assert [config[key] for key in ("batch_size", "epochs", "optim.base_lr", "optim.warmup_epochs")] == [10, 3, 0.5, 1]


def reach(config: dict[str, Any], count: int) -> float:
    """Return the sum of the learning rates of all steps, at the peak."""
    steps = config["epochs"] * count / config["batch_size"]
    return float(steps * config["optim.base_lr"] * config["batch_size"] / 256)


def test_a_linear_probe_of_imagenet_is_the_papers() -> None:
    config = second_stage(1_281_167, SERVER)
    assert (config["optim.name"], config["optim.base_lr"], config["epochs"]) == ("lars", 0.1, 90)
    # Ten epochs of a CPU are steps enough too.
    assert second_stage(1_281_167, LAPTOP)["optim.base_lr"] == 0.1


@pytest.mark.parametrize("machine", [LAPTOP, SERVER])
@pytest.mark.parametrize("count", [2, 200, 50_000])
def test_lars_gets_as_far_with_few_images(count: int, machine: Machine) -> None:
    config = second_stage(count, machine)
    assert config["optim.base_lr"] > 0.1
    assert reach(config, count) == pytest.approx(2500, rel=0.05)  # two digits are kept


def test_how_far_lars_gets_does_not_depend_on_the_batch() -> None:
    rates = {second_stage(20_000, SERVER, batch_size=batch)["optim.base_lr"] for batch in (64, 256, 1024)}
    assert len(rates) == 1


def test_the_digits_need_a_greater_rate_than_the_papers() -> None:
    config = second_stage(1293, LAPTOP)
    assert config["epochs"] == 90
    assert config["optim.base_lr"] == pytest.approx(2500 * 256 / (90 * 1293), rel=0.02)
    assert config["optim.base_lr"] > 30 * 0.1


@pytest.mark.parametrize(
    ("epochs", "batch", "capped"), [(1, 256, True), (20, 256, True), (30, 256, False), (90, 1024, True)]
)
def test_the_rate_of_lars_is_not_raised_without_end(epochs: int, batch: int, capped: bool) -> None:
    # Above 20 a step changes a fifth of the weights and more; 125 steps at 20 get as far as is needed.
    config = second_stage(1293, LAPTOP, epochs=epochs, batch_size=batch)
    peak = config["optim.base_lr"] * batch / 256
    assert (peak == pytest.approx(20, rel=0.03)) is capped
    assert peak < 20.6


def test_other_optimizers_of_a_probe_keep_their_own_rates() -> None:
    rates = {
        name: second_stage(1293, LAPTOP, optim__name=name, batch_size=256)["optim.base_lr"] for name in ("adamw", "sgd")
    }
    assert rates == {"adamw": 0.02, "sgd": 0.1}
    for protocol in ("mlp_probe", "attentive_probe", "partial_finetune", "finetune"):
        config = second_stage(1293, LAPTOP, protocol, batch_size=256)
        assert (config["optim.name"], config["optim.base_lr"]) == ("adamw", 0.001)


PAPER = {"mixup": 0.8, "cutmix": 1.0, "rand_augment": 9, "erasing": 0.25}


@pytest.mark.parametrize("protocol", ["finetune", "partial_finetune"])
@pytest.mark.parametrize(
    ("count", "epochs", "strong"), [(10_000, 50, True), (1_281_167, 100, True), (9_999, 50, False), (10_000, 49, False)]
)
def test_many_images_and_epochs_get_the_augmentation_of_the_paper(
    protocol: str, count: int, epochs: int, strong: bool
) -> None:
    config = second_stage(count, SERVER, protocol, epochs=epochs)
    assert {key: config[f"protocol.{key}"] for key in PAPER} == (PAPER if strong else dict.fromkeys(PAPER, 0))


def test_augmentation_that_is_given_is_kept() -> None:
    few = second_stage(100, LAPTOP, "finetune", protocol__mixup=0.4)
    assert [few[f"protocol.{key}"] for key in PAPER] == [0.4, 0, 0, 0]
    many = second_stage(100_000, SERVER, "finetune", protocol__mixup=0, protocol__cutmix=0.0)
    assert [many[f"protocol.{key}"] for key in PAPER] == [0, 0, 9, 0.25]


@pytest.mark.parametrize("protocol", ["linear_probe", "mlp_probe", "attentive_probe"])
def test_a_probe_is_not_augmented_and_has_baselines(protocol: str) -> None:
    for count, machine in ((100, LAPTOP), (1_281_167, SERVER)):
        config = second_stage(count, machine, protocol)
        assert config["baselines"] is True
        assert not [key for key in PAPER if config.get(f"protocol.{key}")]


@pytest.mark.parametrize("protocol", ["finetune", "partial_finetune"])
@pytest.mark.parametrize(
    ("machine", "count", "epochs", "wanted"),
    [
        (LAPTOP, 5_000, 100, True),
        (LAPTOP, 5_001, 100, False),
        (SERVER, 50_000, 100, True),
        (SERVER, 50_001, 100, False),
    ],
)
def test_a_long_finetuning_is_not_doubled_unasked(
    protocol: str, machine: Machine, count: int, epochs: int, wanted: bool
) -> None:
    assert second_stage(count, machine, protocol, epochs=epochs)["baselines"] is wanted
    for answer in (True, False):
        assert second_stage(count, machine, protocol, epochs=epochs, baselines=answer)["baselines"] is answer


@pytest.mark.parametrize("shares", [2, 3, 7])
def test_a_batch_that_nobody_chose_divides_among_the_devices(shares: int) -> None:
    for choose in (choose_pretraining, choose_finetuning):
        choices = Choices(compose("finetune", ["checkpoint=null"]))
        choose(choices, 1000, SERVER, shares)
        assert choices.get("batch_size") % shares == 0


def test_a_model_of_the_users_choice_gets_a_decoder() -> None:
    config, _ = chosen(THUMBNAILS, LAPTOP, ("model.name=vit_small_patch16_224",))
    assert config["model.width"] is None
    assert None not in (config["decoder.width"], config["decoder.depth"], config["decoder.heads"])
