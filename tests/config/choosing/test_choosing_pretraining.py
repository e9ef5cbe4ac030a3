"""Defaults that fit: functions of what was seen, whatever it was."""

from __future__ import annotations

import functools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mae.config.choices import Choices, Machine
from mae.config.choosing.finetuning import choose_finetuning
from mae.config.choosing.images import choose_loading
from mae.config.choosing.model import choose_decoder, choose_images_and_model, decoder_sizes, preset_for, size_for
from mae.config.choosing.pretraining import choose_batch, choose_length, validation_pace
from mae.config.composing import load_preset
from mae.config.reading import leaves
from mae.config.schema.roots import PretrainConfig
from mae.data.inspection import Inspection
from tests.config.choosing.composed import choices_of

LAPTOP = Machine(accelerated=False, cores=4)
SERVER = Machine(accelerated=True, cores=32)


def look(side: int, count: int, *, channels: int = 3, in_memory: bool = False) -> Inspection:
    return Inspection(count, channels, side, side, side, in_memory)


DIGITS = look(8, 1293, channels=1, in_memory=True)
DRAWINGS = look(28, 54_000, channels=1, in_memory=True)
THUMBNAILS = look(64, 90_000)
PHOTOGRAPHS = look(3000, 2000)  # 12 megapixels: 4000 x 3000
MANY_PHOTOGRAPHS = look(400, 1_281_167)
MACHINES = st.builds(Machine, st.booleans(), st.integers(1, 256))
SIGHTS = st.builds(
    look, st.integers(1, 4000), st.integers(2, 10**7), channels=st.sampled_from([1, 3]), in_memory=st.booleans()
)

preset = functools.cache(load_preset)
COST = 1e7  # multiply-adds of a training step on a digit, about


def chosen(seen: Inspection, machine: Machine, *overrides: str) -> tuple[dict[str, Any], Choices[PretrainConfig]]:
    """Return the pretraining config that the rules complete, flat, and the choices."""
    choices = choices_of("pretrain", *overrides)
    choose_images_and_model(choices, seen, machine, preset)
    choose_loading(choices, seen, machine, devices=1)
    choose_batch(choices, seen.count, machine, cost=COST)
    choose_length(choices, seen.count, machine, cost=COST)
    return leaves(choices.config.plain()), choices


@given(SIGHTS, MACHINES)
def test_everything_is_chosen_and_fits_together(seen: Inspection, machine: Machine) -> None:
    config, choices = chosen(seen, machine)
    may_stay_null = {
        "run_dir",
        "minutes",
        "epoch_steps",
        "data.flip",
        "data.mean",
        "data.std",
        "optim.clip_norm",
        "debug.steps",
    }
    # How much is measured follows from the model, once it is built.
    left = {key for key, value in config.items() if value is None and not key.startswith("callbacks.knn_")}
    assert left <= may_stay_null
    assert 1 <= config["batch_size"] <= seen.count
    assert 0 < config["optim.warmup_epochs"] < config["epochs"]
    # The patch divides the size, and the grid leaves something to predict.
    assert config["data.image_size"] % config["model.patch_size"] == 0
    assert 16 <= (config["data.image_size"] // config["model.patch_size"]) ** 2 <= 256
    assert config["model.width"] % config["model.heads"] == config["decoder.width"] % config["decoder.heads"] == 0
    assert 0 <= config["data.num_workers"] <= max(1, machine.cores - 1)
    if seen.short_side >= 8:
        assert config["data.image_size"] <= 2 * seen.short_side
    for choice in choices.made:
        assert len(choice.reason) > 3
        assert str(choice) == f"{choice.key}={choice.value}: {choice.reason}"
        assert choice.key == "model" or config[choice.key] == choice.value


def test_a_run_of_any_length_has_about_twenty_validations() -> None:
    for epochs in range(1, 2001):
        every = validation_pace(epochs)
        assert min(epochs, 14) <= math.ceil(epochs / every) <= 28, epochs
        if epochs % 20 == 0:
            assert every == epochs // 20  # just as many, evenly
    assert validation_pace(53) == 3  # a prime number: the last one comes two epochs after the one before
    for wanted in range(5, 21):
        counts = [math.ceil(epochs / validation_pace(epochs, wanted)) for epochs in range(wanted, 500)]
        assert max(abs(count - wanted) for count in counts) <= 0.4 * wanted + 1


@given(st.integers(1, 64), st.integers(1, 64), st.integers(1, 8), st.sampled_from([DIGITS, PHOTOGRAPHS]))
def test_workers_are_few_enough_for_the_cores_and_the_devices_of_one_node(
    cores: int, devices: int, nodes: int, seen: Inspection
) -> None:
    choices = choices_of("pretrain")
    choices.config.trainer.num_nodes = nodes
    choose_loading(choices, seen, Machine(True, cores), devices * nodes)
    assert 0 <= choices.config.data.num_workers * devices <= max(devices, cores)
    # The devices of other nodes have cores of their own.
    alone = choices_of("pretrain")
    choose_loading(alone, seen, Machine(True, cores), devices)
    assert choices.config.data.num_workers == alone.config.data.num_workers


def test_eight_nodes_of_eight_devices_load_as_one_of_them_does() -> None:
    # 96 cores for 8 devices on each node: 1 worker each where the devices of all nodes were counted.
    choices = choices_of("pretrain", "trainer.num_nodes=8")
    choose_loading(choices, PHOTOGRAPHS, Machine(True, 96), devices=64)
    assert choices.config.data.num_workers == 11


def test_images_in_memory_need_no_workers_on_a_cpu() -> None:
    assert chosen(DIGITS, LAPTOP)[0]["data.num_workers"] == 0


@pytest.mark.parametrize(("machine", "size"), [(LAPTOP, 128), (SERVER, 224)])
def test_drawings_and_photographs_get_different_recipes(machine: Machine, size: int) -> None:
    drawings, photographs = chosen(DRAWINGS, machine)[0], chosen(PHOTOGRAPHS, machine)[0]
    for key in ("data.image_size", "data.channels", "model.patch_size", "batch_size"):
        assert drawings[key] != photographs[key], key
    assert (drawings["data.image_size"], drawings["data.channels"]) == (28, 1)
    assert (photographs["data.image_size"], photographs["model.patch_size"]) == (size, 16)
    assert photographs["data.min_scale"] == 0.2


def test_more_images_and_a_faster_machine_get_a_larger_model() -> None:
    cases = ((PHOTOGRAPHS, LAPTOP), (PHOTOGRAPHS, SERVER), (MANY_PHOTOGRAPHS, SERVER))
    widths = [chosen(*case)[0]["model.width"] for case in cases]
    assert widths == sorted(set(widths))
    config = chosen(MANY_PHOTOGRAPHS, SERVER)[0]
    assert config["model.name"] == "vit_base_patch16_224"
    assert (config["batch_size"], config["optim.base_lr"]) == (4096, 1.5e-4)  # the paper's


GIVEN = {
    "data.image_size": 48,
    "data.channels": 1,
    "data.min_scale": 0.5,
    "data.flip": False,
    "data.num_workers": 3,
    "batch_size": 24,
    "epochs": 7,
    "optim.base_lr": 0.125,
    "optim.warmup_epochs": 2.0,
    "trainer.validate_every": 7,
    "model.patch_size": 12,
    "model.width": 60,
    "model.depth": 3,
    "model.heads": 5,
    "decoder.width": 36,
    "decoder.depth": 1,
    "decoder.heads": 2,
}


@given(st.sets(st.sampled_from(sorted(GIVEN))), st.sampled_from([DRAWINGS, MANY_PHOTOGRAPHS]), MACHINES)
def test_whatever_is_given_is_kept(keys: set[str], seen: Inspection, machine: Machine) -> None:
    choices = choices_of("pretrain")
    for key in keys:
        choices.fill(key, GIVEN[key], "given")
    choices.made.clear()
    choose_images_and_model(choices, seen, machine, preset)
    choose_loading(choices, seen, machine, devices=1)
    choose_batch(choices, seen.count, machine, cost=COST)
    choose_length(choices, seen.count, machine, cost=COST)
    assert {key: choices.get(key) for key in keys} == {key: GIVEN[key] for key in keys}
    assert not {choice.key for choice in choices.made} & keys


def test_values_that_python_takes_for_nothing_are_kept_too() -> None:
    given = ("data.flip=false", "data.num_workers=0", "optim.base_lr=0.0")
    config = chosen(MANY_PHOTOGRAPHS, SERVER, *given)[0]
    assert [config[text.partition("=")[0]] for text in given] == [False, 0, 0.0]


def test_later_choices_follow_from_given_values() -> None:
    for size in ("32", "[32,64]"):  # a rectangle's shorter side decides
        assert chosen(PHOTOGRAPHS, SERVER, f"data.image_size={size}")[0]["model.patch_size"] == 4
    rates = [chosen(DRAWINGS, LAPTOP, f"batch_size={batch}")[0]["optim.base_lr"] for batch in (16, 64, 256)]
    assert rates == sorted(rates, reverse=True)  # lr = base_lr * batch / 256 grows with the root of the batch


DECODERS = {
    "digits": (64, 2, 4),
    "micro_64": (64, 1, 4),
    "small_28": (64, 1, 4),
    "small_32": (192, 4, 3),
    "small_64": (192, 4, 3),
    "tiny": (192, 4, 3),
    "small": (256, 8, 8),
    "base": (512, 8, 16),
    "large": (512, 8, 16),
    "huge": (512, 8, 16),
}


def test_the_decoder_follows_the_encoders_width() -> None:
    for name, sizes in DECODERS.items():
        config, choices = chosen(THUMBNAILS, LAPTOP, f"model={name}")
        assert tuple(config[f"decoder.{key}"] for key in ("width", "depth", "heads")) == sizes, name
        assert [choice.key for choice in choices.made if "wide" in choice.reason][:1] == ["decoder.width"]
    # A model by its name alone: timm knows the width.
    assert chosen(THUMBNAILS, LAPTOP, "model.name=vit_small_patch16_224")[0]["decoder.width"] == 256
    given = chosen(THUMBNAILS, LAPTOP, "model=base", "decoder.depth=2")[0]
    assert (given["decoder.width"], given["decoder.depth"]) == (512, 2)
    linear = choices_of("pretrain", "objective=masked_patch_prediction", "model=tiny")
    choose_decoder(linear)
    assert linear.made == []


@given(st.integers(1, 4096))
def test_a_decoder_is_never_wider_than_it_should_be(width: int) -> None:
    wide, depth, heads = decoder_sizes(width)
    assert wide % heads == 0 and 64 <= wide <= 512 and 1 <= depth <= 8


@given(st.integers(1, 50))
def test_a_batch_that_nobody_chose_divides_among_the_devices(shares: int) -> None:
    choices = choices_of("pretrain")
    choose_batch(choices, 1000, SERVER, shares)
    assert choices.config.batch_size % shares == 0
    second = choices_of("finetune", "checkpoint=null")
    choose_finetuning(second, 1000, SERVER, shares)
    assert second.config.batch_size % shares == 0


@pytest.mark.parametrize("machine", [SERVER, LAPTOP])
def test_every_preset_fits_its_images(machine: Machine) -> None:
    for side in range(8, 400):
        name, size = preset_for(side, 1000, machine)[0], size_for(side, small=not machine.accelerated)
        assert size <= 2 * side
        assert size % preset(name)["patch_size"] == 0


def test_a_model_that_is_given_sees_photographs_as_the_paper_does() -> None:
    assert chosen(PHOTOGRAPHS, LAPTOP)[0]["data.image_size"] == 128
    assert chosen(PHOTOGRAPHS, LAPTOP, "model=tiny")[0]["data.image_size"] == 224
    assert chosen(PHOTOGRAPHS, LAPTOP, "model.patch_size=14")[0]["data.image_size"] == 224
    assert chosen(PHOTOGRAPHS, SERVER)[0]["data.image_size"] == 224
