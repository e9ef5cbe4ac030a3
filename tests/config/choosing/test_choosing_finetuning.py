"""Defaults of the second stage that fit the labels, whatever their number."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mae.config.choices import Machine
from mae.config.choosing.budget import multiply_adds_of
from mae.config.choosing.finetuning import (
    LEAST_STEPS,
    PRETRAINED_HEAD,
    SCRATCH_HEAD,
    TUNING_MINUTES,
    choose_baselines,
    choose_finetuning,
    choose_layer_decay,
    from_scratch,
)
from mae.config.composing import compose
from mae.config.reading import leaves
from mae.config.schema.protocols import Finetune
from tests.config.choosing.composed import choices_of

LAPTOP = Machine(accelerated=False, cores=4)
SERVER = Machine(accelerated=True, cores=32)
MACHINES = st.builds(Machine, st.booleans(), st.integers(1, 256))
PAPER = {"mixup": 0.8, "cutmix": 1.0, "rand_augment": 9, "erasing": 0.25}


def second_stage(
    count: int, machine: Machine, protocol: str = "linear_probe", shares: int = 1, **given: Any
) -> dict[str, Any]:
    """Return the config that the rules complete for so many labelled images, flat; ``optim__name`` is optim.name."""
    choices = choices_of("finetune", "checkpoint=null", f"protocol={protocol}")
    for key, value in given.items():
        group, _, leaf = key.rpartition("__")
        setattr(getattr(choices.config, group) if group else choices.config, leaf, value)
    choose_finetuning(choices, count, machine, shares)
    choose_baselines(choices, count, machine)
    return leaves(choices.config.plain())


PROTOCOLS = st.sampled_from(["linear_probe", "mlp_probe", "attentive_probe", "partial_finetune", "finetune"])


@given(st.integers(2, 10**7), PROTOCOLS, MACHINES)
def test_finetuning_choices_fit_the_labels(count: int, protocol: str, machine: Machine) -> None:
    config = second_stage(count, machine, protocol)
    assert 2 <= config["batch_size"] <= count  # BatchNorm in the probe needs two images a batch
    assert config["trainer.validate_every"] <= config["epochs"]
    left = {key for key, value in config.items() if value is None and key.startswith(("protocol.", "optim."))}
    assert left <= {"optim.clip_norm", "protocol.hidden", "protocol.heads", "protocol.layer_decay"}
    if "probe" in protocol:
        assert config["baselines"] is True
        assert not [key for key in PAPER if config.get(f"protocol.{key}")]
    if protocol == "linear_probe":
        # LARS gets as far with few images, but no step may change more than a fifth of the weights; two digits are kept.
        peak = config["optim.base_lr"] * config["batch_size"] / 256
        reach = config["epochs"] * count * config["optim.base_lr"] / 256
        assert config["optim.base_lr"] >= 0.1 or peak == pytest.approx(20, rel=0.05)
        assert reach >= 2500 * 0.95 or peak == pytest.approx(20, rel=0.05)
        assert peak < 20.6 or config["optim.base_lr"] == 0.1


def test_a_linear_probe_of_imagenet_is_the_papers() -> None:
    config = second_stage(1_281_167, SERVER)
    assert (config["optim.name"], config["optim.base_lr"], config["epochs"]) == ("lars", 0.1, 90)
    # Ten epochs of a CPU are steps enough too.
    assert second_stage(1_281_167, LAPTOP)["optim.base_lr"] == 0.1


def test_how_far_lars_gets_does_not_depend_on_the_batch_and_is_not_raised_without_end() -> None:
    assert len({second_stage(20_000, SERVER, batch_size=batch)["optim.base_lr"] for batch in (64, 256, 1024)}) == 1
    # Above 20 a step changes a fifth of the weights and more; 125 steps at 20 get as far as is needed.
    for epochs, batch, capped in ((1, 256, True), (20, 256, True), (30, 256, False), (90, 1024, True)):
        config = second_stage(1293, LAPTOP, epochs=epochs, batch_size=batch)
        assert (config["optim.base_lr"] * batch / 256 == pytest.approx(20, rel=0.03)) is capped
    assert second_stage(1293, LAPTOP)["optim.base_lr"] == pytest.approx(2500 * 256 / (90 * 1293), rel=0.02)


def test_other_optimizers_keep_their_own_rates() -> None:
    for name, rate in {"adamw": 0.02, "sgd": 0.1}.items():
        assert second_stage(1293, LAPTOP, optim__name=name, batch_size=256)["optim.base_lr"] == rate
    for protocol in ("mlp_probe", "attentive_probe", "partial_finetune", "finetune"):
        config = second_stage(1293, LAPTOP, protocol, batch_size=256)
        assert (config["optim.name"], config["optim.base_lr"]) == ("adamw", 0.001)


@given(st.integers(2, 999), st.sampled_from([1, 2, 4, 8]))
def test_few_labels_are_tuned_on_in_many_steps_which_see_nearly_all_of_them(count: int, shares: int) -> None:
    config = second_stage(count, LAPTOP, "finetune", shares)
    batch = config["batch_size"]
    assert config["epochs"] % config["trainer.validate_every"] == 0
    if count >= 2 * shares:
        assert batch % shares == 0 and batch // shares >= 2  # a BatchNorm stands before the head
        steps = count // batch
        assert steps * config["epochs"] >= 400
        assert batch <= max(24, 0.15 * count) and count - steps * batch <= max(count * 0.15, 2 * shares)
    else:
        assert config["protocol.head_norm"] == "none"
    assert config["optim.base_lr"] * batch / 256 == pytest.approx(1e-3, rel=0.05)


def test_an_accelerator_is_given_whole_batches() -> None:
    for count in (1500, 12_811, 1_281_167):
        assert second_stage(count, SERVER, "finetune")["batch_size"] == 1024


def test_127_labels_are_eight_steps_of_fifteen_images() -> None:
    config = second_stage(127, LAPTOP, "finetune")
    assert (config["batch_size"], config["epochs"]) == (15, 200)
    assert second_stage(10, LAPTOP, "finetune")["epochs"] == 400
    assert second_stage(127, LAPTOP)["batch_size"] == 64  # a probe moves one layer


def test_a_pretrained_encoder_and_one_at_random_get_heads_of_their_own() -> None:
    keys = ("head_start", "head_norm", "head_rate")
    for checkpoint, head in ((None, SCRATCH_HEAD), ("runs/pretrain", PRETRAINED_HEAD)):
        config = second_stage(5000, LAPTOP, "finetune", checkpoint=checkpoint)
        assert {key: config[f"protocol.{key}"] for key in keys} == head
    two_layers = second_stage(5000, LAPTOP, "finetune", checkpoint="runs/pretrain", protocol__head="mlp")
    assert (two_layers["protocol.head_start"], two_layers["protocol.head_rate"]) == (
        "random",
        SCRATCH_HEAD["head_rate"],
    )
    own = second_stage(5000, LAPTOP, "finetune", checkpoint="runs/pretrain", protocol__head_norm="none")
    assert (own["protocol.head_norm"], own["protocol.head_start"]) == ("none", PRETRAINED_HEAD["head_start"])


@pytest.mark.parametrize("head", ["linear", "mlp"])
@pytest.mark.parametrize("width", [128, 192])
def test_the_same_network_from_scratch_gets_what_is_fair_to_it(width: int, head: str) -> None:
    """The nested baseline is what checkpoint=null would choose, for the batches and epochs of the run."""
    given = ("protocol=finetune", "batch_size=50", "epochs=30", "protocol.head_norm=none", "protocol.ema=0.9")
    given += (f"protocol.head={head}",)
    chosen = {}
    for checkpoint in ("runs/pretrain", None):
        choices = choices_of("finetune", *given)
        choices.config.checkpoint = checkpoint
        choose_finetuning(choices, 1000, LAPTOP, width=width)
        choose_layer_decay(choices, 4, width)
        chosen[checkpoint] = choices.config
    pretrained, scratch = chosen["runs/pretrain"], chosen[None]
    assert pretrained != scratch
    assert from_scratch(pretrained, 4, width) == scratch

    assert isinstance(pretrained.protocol, Finetune)
    pretrained.protocol.head_rate = 3.0
    pretrained.optim.base_lr, pretrained.optim.warmup_epochs = 7e-3, 3.0
    same = from_scratch(pretrained, 4, width)
    assert isinstance(same.protocol, Finetune)
    given_for_both = (same.optim.base_lr, same.optim.warmup_epochs, same.protocol.head_rate)
    assert given_for_both == (7e-3, 3.0, 3.0)


def test_validation_costs_less_than_what_it_chooses_from() -> None:
    def pace(count: int, validated: int, *overrides: str) -> int:
        choices = choices_of("finetune", *(overrides or ("protocol=finetune", "batch_size=10", "epochs=200")))
        choose_finetuning(choices, count, LAPTOP, validated=validated)
        return int(choices.config.trainer.validate_every)

    assert pace(50, 100) == 10  # 20 of them take a fifteenth of the time
    assert pace(50, 1000) == 20  # 9 and 10 would be in time
    assert pace(50, 5000) == 40  # never fewer than 5
    assert pace(50, 5000, "protocol=linear_probe", "batch_size=10", "epochs=200") == 10  # a probe as ever


def test_a_papers_recipe_is_the_same_from_scratch() -> None:
    papers = compose("finetune", ["experiment=mae_base_finetune", "checkpoint=runs/pretrain"])
    assert from_scratch(papers, 12, 768) == papers.model_copy(update={"checkpoint": None})


@pytest.mark.parametrize(
    ("depth", "width", "checkpoint", "decay"),
    [
        (0, 192, "run", 1.0),
        (12, 768, "run", 0.75),
        (4, 128, "run", 0.871),
        (12, 192, "run", 0.948),
        (12, 768, None, 1.0),
    ],
)
def test_layers_learn_at_rates_of_their_own(depth: int, width: int, checkpoint: str | None, decay: float) -> None:
    choices = choices_of("finetune", "protocol=finetune")
    choices.config.checkpoint = checkpoint
    choose_layer_decay(choices, depth, width)
    assert choices.config.protocol.layer_decay == decay


@given(st.integers(2, 10**6), st.floats(1e5, 1e11), st.sampled_from([96, 192, 384]))
def test_a_fine_tuning_on_a_cpu_takes_minutes_and_enough_steps(count: int, cost: float, width: int) -> None:
    choices = choices_of("finetune", "checkpoint=run", "protocol=finetune")
    choose_finetuning(choices, count, LAPTOP, cost=cost, width=width)
    config = choices.config
    steps = config.epochs * (count // config.batch_size)
    assert config.epochs <= 200 or steps < LEAST_STEPS + count // config.batch_size
    assert steps >= LEAST_STEPS or steps >= count // config.batch_size  # an epoch is the least
    budget = multiply_adds_of(TUNING_MINUTES, width) / (3 * cost * count)
    assert config.epochs <= max(1, round(budget), -(-LEAST_STEPS // max(1, count // config.batch_size)))


@pytest.mark.parametrize("protocol", ["finetune", "partial_finetune"])
def test_many_images_and_epochs_get_the_augmentation_of_the_paper(protocol: str) -> None:
    for count, epochs, strong in ((10_000, 50, True), (1_281_167, 100, True), (9_999, 50, False), (10_000, 49, False)):
        config = second_stage(count, SERVER, protocol, epochs=epochs)
        assert {key: config[f"protocol.{key}"] for key in PAPER} == (PAPER if strong else dict.fromkeys(PAPER, 0))


def test_augmentation_that_is_given_is_kept() -> None:
    few = second_stage(100, LAPTOP, "finetune", protocol__mixup=0.4)
    assert [few[f"protocol.{key}"] for key in PAPER] == [0.4, 0, 0, 0]
    many = second_stage(100_000, SERVER, "finetune", protocol__mixup=0, protocol__cutmix=0.0)
    assert [many[f"protocol.{key}"] for key in PAPER] == [0, 0, 9, 0.25]


def test_a_long_finetuning_is_not_doubled_unasked() -> None:
    for machine, most in ((LAPTOP, 5_000), (SERVER, 50_000)):
        for protocol in ("finetune", "partial_finetune"):
            for count, wanted in ((most, True), (most + 1, False)):
                assert second_stage(count, machine, protocol, epochs=100)["baselines"] is wanted
                for answer in (True, False):
                    assert second_stage(count, machine, protocol, epochs=100, baselines=answer)["baselines"] is answer
