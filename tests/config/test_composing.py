"""Configs: composed, checked, resumed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mae.config.checks import check_values, leaves
from omegaconf import OmegaConf

from mae.config.choices import Machine, preset_for
from mae.config.composing import compose, config_folder, load_preset, one_line_errors, resumed_config

PLAIN = (str, int, float, bool, type(None), list, dict)


@pytest.mark.parametrize("root", ["pretrain", "finetune"])
def test_compose_gives_plain_values(root: str) -> None:
    # Checkpoints and wandb hold parts of the config; a DictConfig among them would not load with weights_only=True.
    def walk(value: Any) -> None:
        assert type(value) in PLAIN
        for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            walk(part)

    config = compose(root)
    walk(config)
    assert "hydra" not in config


def test_the_root_keys_are_those_that_users_depend_on() -> None:
    common = {"run_dir", "seed", "epochs", "batch_size", "resume", "data", "model", "optim", "trainer", "logger"}
    assert set(compose("pretrain")) >= common | {"masking", "decoder", "objective"}
    assert set(compose("finetune")) >= common | {"checkpoint", "protocol", "label_fraction", "labels_per_class"}
    flat = leaves(compose("pretrain"))
    assert {
        "data.image_size",
        "data.num_workers",
        "model.name",
        "masking.ratio",
        "optim.base_lr",
        "trainer.devices",
    } <= set(flat)
    assert "data.root" in leaves(compose("pretrain", ["data=folder"]))


def test_overrides_reach_their_keys() -> None:
    flat = leaves(
        compose("pretrain", ["masking.ratio=0.5", "data.image_size=[16,32]", "optim.base_lr=1e-3", "model=tiny"])
    )
    assert flat["masking.ratio"] == 0.5
    assert flat["data.image_size"] == [16, 32]
    assert flat["optim.base_lr"] == 1e-3
    assert (flat["model.width"], flat["decoder.width"]) == (192, 192)


@pytest.mark.parametrize(
    "path", ["some folder/with spaces", "/data/ünïcode-画像", "/data/v1.2_(final)", "C:/photos", "/data/it's"]
)
def test_folders_of_odd_names_can_be_given_in_quotes(path: str) -> None:
    escaped = path.replace("'", r"\'")
    assert compose("pretrain", ["data=folder", f"data.root='{escaped}'"])["data"]["root"] == path


def groups() -> list[tuple[str, str]]:
    return [(path.parent.name, path.stem) for path in sorted(config_folder().glob("*/*.yaml"))]


@pytest.mark.parametrize(
    ("group", "option"), [case for case in groups() if case[0] not in ("protocol", "task", "experiment")]
)
def test_every_recipe_composes_with_pretraining(group: str, option: str) -> None:
    assert compose("pretrain", [f"{group}={option}"])


@pytest.mark.parametrize(
    ("group", "option"), [case for case in groups() if case[0] not in ("masking", "decoder", "objective", "experiment")]
)
def test_every_recipe_composes_with_the_second_stage(group: str, option: str) -> None:
    assert compose("finetune", [f"{group}={option}"])


@pytest.mark.parametrize("path", sorted(config_folder().glob("experiment/*.yaml")), ids=lambda path: path.stem)
def test_every_experiment_opens_with_a_command_that_composes_and_what_to_expect(path: Path) -> None:
    comments = [line.removeprefix("# ") for line in path.read_text().splitlines() if line.startswith("#")]
    command = next(line for line in comments if line.startswith("python train_"))
    script, *overrides = command.partition("  ")[0].split()[1:]
    assert f"experiment={path.stem}" in overrides
    assert compose(script.removeprefix("train_").removesuffix(".py"), overrides)
    for word in ("Cost:", "Expect:"):
        assert any(line.startswith(word) for line in comments), word


def test_every_preset_that_is_chosen_exists() -> None:
    names = {
        preset_for(side, count, Machine(fast, 8))[0]
        for side in (8, 28, 32, 64, 300)
        for count in (10, 10**6)
        for fast in (0, 1)
    }
    for name in names:
        assert set(load_preset(name)) >= {"model", "decoder"}


def test_every_wrong_value_is_named_at_once() -> None:
    # One error a try, with a wait of an hour in the queue before each, is how a day is lost.
    config = compose(
        "pretrain",
        [
            "epochs=0",
            "batch_size=many",
            "optim.base_lr=-1",
            "data.image_size=[1,2,3]",
            "data.num_workers=1.5",
            "seed=true",
        ],
    )
    with pytest.raises(ValueError, match="epochs") as raised:
        check_values(config)
    message = str(raised.value)
    for part in (
        "epochs=0 is less than 1",
        "batch_size='many' is not a whole number",
        "optim.base_lr=-1 is less than 0",
        "data.image_size=[1, 2, 3]",
        "data.num_workers=1.5 is not a whole number",
        "seed=True is not a whole number",
    ):
        assert part in message
    assert "\n" not in message


def test_null_and_good_values_pass() -> None:
    for root in ("pretrain", "finetune"):
        check_values(compose(root))
        check_values(
            compose(root, ["epochs=3", "data.image_size=[16,32]", "optim.base_lr=0.1", "optim.warmup_epochs=0"])
        )


Resume = Callable[..., dict[str, Any]]


@pytest.fixture
def resume(tmp_path: Path) -> Resume:
    """Compose a run, complete and store it as a run does, and resume it with overrides."""

    def make(first: list[str], again: list[str]) -> dict[str, Any]:
        started = compose("pretrain", [f"run_dir={tmp_path}", *first])
        for key, value in {"epochs": 5, "batch_size": 32}.items():
            started[key] = value if started[key] is None else started[key]
        started["data"]["image_size"] = started["data"]["image_size"] or 16
        started["data"]["mean"] = (0.25,)
        OmegaConf.save(OmegaConf.create(started), tmp_path / "config.yaml")
        stored = OmegaConf.to_container(OmegaConf.load(tmp_path / "config.yaml"))
        overrides = [f"run_dir={tmp_path}", "resume=true", *again]
        return resumed_config(compose("pretrain", overrides), stored, overrides)

    return make


FIRST = ["optim.base_lr=0.01", "data=fashion_mnist", "data.root=/old", "model=tiny", "masking.ratio=0.6"]


def test_the_run_folder_alone_is_enough_to_resume(resume: Resume) -> None:
    flat = leaves(resume(FIRST, []))
    assert (flat["optim.base_lr"], flat["masking.ratio"], flat["model.width"]) == (0.01, 0.6, 192)
    assert (flat["data.source"], flat["data.name"], flat["data.root"]) == ("torchvision", "fashion_mnist", "/old")
    assert (flat["epochs"], flat["data.image_size"], flat["data.mean"]) == (5, 16, [0.25])
    assert flat["resume"] is True


def test_repeating_the_first_command_resumes_it(resume: Resume) -> None:
    assert resume(FIRST, FIRST) == resume(FIRST, [])


def test_where_and_how_fast_it_runs_may_change(resume: Resume) -> None:
    again = ["data=fashion_mnist", "data.root=/new", "data.num_workers=2", "trainer.devices=3", "trainer.accumulate=2"]
    flat = leaves(resume(FIRST, again))
    assert (flat["data.root"], flat["data.num_workers"]) == ("/new", 2)
    assert (flat["trainer.devices"], flat["trainer.accumulate"]) == (3, 2)


@pytest.mark.parametrize(
    ("override", "then", "now"),
    [
        ("optim.base_lr=0.02", "0.01", "0.02"),
        ("masking.ratio=0.75", "0.6", "0.75"),
        ("model=base", "vit_tiny", "vit_base"),
        ("epochs=6", "5", "6"),
        ("batch_size=64", "32", "64"),
        ("seed=1", "0", "1"),
        ("data.image_size=32", "16", "32"),
    ],
)
def test_what_is_computed_may_not_change(resume: Resume, override: str, then: str, now: str) -> None:
    key = override.partition("=")[0]
    with pytest.raises(ValueError, match=key) as raised:
        resume(FIRST, [override])
    assert then in str(raised.value)
    assert now in str(raised.value)


def test_errors_of_users_are_one_line_and_status_two(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised, one_line_errors():
        raise ValueError("data.mean=[0.5] [not markup] " + "long " * 60)
    captured = capsys.readouterr()
    assert raised.value.code == 2
    assert captured.out == ""
    # Neither wrapped at the width of the terminal nor robbed of what looks like markup.
    assert captured.err == "error: data.mean=[0.5] [not markup] " + "long " * 60 + "\n"


def test_errors_of_ours_keep_their_traceback() -> None:
    with pytest.raises(AssertionError), one_line_errors():
        raise AssertionError("a bug")
