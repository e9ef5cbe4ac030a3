"""Configs: composed from groups and overrides; what is misspelt names the nearest."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra

from mae.config.composing import compose, compose_values, config_folder, first_value, load_preset
from mae.config.mistakes import Groups
from mae.config.reading import ROOTS, leaves

PLAIN = (str, int, float, bool, type(None), list, dict)
SECOND, FIRST = {"protocol", "task", "augmentation"}, {"masking", "decoder", "objective"}


def flat(root: str, *overrides: str) -> dict[str, Any]:
    return leaves(compose(root, overrides).plain())


@pytest.mark.parametrize("root", ROOTS)
def test_compose_gives_plain_values(root: str) -> None:
    # Checkpoints and wandb hold parts of the config; a DictConfig among them would not load with weights_only=True.
    def walk(value: Any) -> None:
        assert type(value) in PLAIN
        for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            walk(part)

    for values in (compose_values(root), compose(root).plain()):
        walk(values)
        assert "hydra" not in values


def test_the_root_keys_are_those_that_users_depend_on() -> None:
    common = {"run_dir", "seed", "epochs", "batch_size", "resume", "data", "model", "optim", "trainer", "logger"}
    assert set(compose_values("pretrain")) >= common | {"masking", "decoder", "objective"}
    assert set(compose_values("finetune")) >= common | {"checkpoint", "protocol", "label_fraction", "labels_per_class"}
    inside = {"data.image_size", "data.num_workers", "model.name", "masking.ratio", "optim.base_lr", "trainer.devices"}
    assert inside <= set(flat("pretrain"))
    assert "data.root" in flat("pretrain", "data=folder")


def test_overrides_reach_their_keys() -> None:
    found = flat("pretrain", "masking.ratio=0.5", "data.image_size=[16,32]", "optim.base_lr=1e-3", "model=tiny")
    assert found["masking.ratio"] == 0.5
    assert found["data.image_size"] == [16, 32]
    assert found["optim.base_lr"] == 1e-3
    assert found["model.width"] == 192


def test_a_preset_of_the_model_sets_the_model_alone() -> None:
    # It used to bring the decoder's sizes along, unseen.
    before = flat("pretrain")
    for preset in Groups([config_folder()]).options("model"):
        after = flat("pretrain", f"model={preset}") if "resnet" not in preset else before
        assert {key.partition(".")[0] for key in after if after[key] != before.get(key)} <= {"model"}, preset
    assert set(load_preset("tiny")) == {"name", "patch_size", "positions", "width", "depth", "heads", "options"}


def test_folders_of_odd_names_can_be_given_in_quotes() -> None:
    paths = ("some folder/with spaces", "/data/ünïcode-画像", "/data/v1.2_(final)", "C:/photos", "/data/it's")
    for path in paths:
        escaped = path.replace("'", r"\'")
        assert compose_values("pretrain", ["data=folder", f"data.root='{escaped}'"])["data"]["root"] == path


def test_a_folder_whose_name_is_a_number_stays_a_text() -> None:
    # Hydra reads data.root=2024 as an integer.
    assert flat("pretrain", "data=folder", "data.root=2024", "run_dir=1")["data.root"] == "2024"
    assert flat("finetune", "checkpoint=2024")["checkpoint"] == "2024"


@pytest.mark.parametrize("root", ROOTS)
def test_every_option_of_every_group_composes(root: str) -> None:
    # The first options of all groups at once, then the second ones: a composition takes a tenth of a second.
    groups = Groups([config_folder()])
    options = {group: groups.options(group) for group in groups.names if group != "experiment"}
    for group in SECOND if root == "pretrain" else FIRST:
        del options[group]
    augmentations = options.pop("augmentation", [])
    for number in range(max(map(len, options.values()))):
        given = [f"{group}={names[number]}" for group, names in options.items() if number < len(names)]
        assert compose(root, given)
    for option in augmentations:
        assert compose(root, ["protocol=finetune", f"augmentation={option}"])


def test_no_option_of_a_group_has_a_comment_at_a_key() -> None:
    # What a key means stands in the schema, once; a file says what its own values are.
    for path in config_folder().glob("*/_common.yaml"):
        assert not [line for line in path.read_text().splitlines() if ":" in line and "#" in line.lstrip("#")[1:]]


def test_augmentation_is_one_switch() -> None:
    keys = [f"protocol.{key}" for key in ("mixup", "cutmix", "rand_augment", "erasing")]
    wanted = {"auto": [None] * 4, "none": [0, 0, 0, 0], "paper": [0.8, 1.0, 9, 0.25]}
    for protocol in ("finetune", "partial_finetune"):
        assert [flat("finetune", f"protocol={protocol}")[key] for key in keys] == wanted["auto"]
        for option, values in wanted.items():
            found = flat("finetune", f"protocol={protocol}", f"augmentation={option}")
            assert [found[key] for key in keys] == values
    with pytest.raises(
        ValueError, match="augmentation=none changes the images of a fine-tuning: it goes with protocol=fin"
    ):
        compose("finetune", ["protocol=linear_probe", "augmentation=none"])


def test_debugging_is_a_group_of_both_roots() -> None:
    for root in ROOTS:
        off = {"debug.overfit": False, "debug.steps": None, "debug.profiler": False}
        assert off.items() <= flat(root).items()
        assert flat(root, "debug=overfit")["debug.overfit"] is True
        assert flat(root, "debug=steps")["debug.steps"] == 5
        assert flat(root, "debug=steps", "debug.steps=2")["debug.steps"] == 2
        assert flat(root, "debug=profiler")["debug.profiler"] is True


MISSPELT = {
    "optim.base_lrr=1": "optim.base_lr",
    "optim.lr=1": "optim.base_lr",
    "lr=1": "optim.base_lr",
    "epoch=3": "epochs",
    "batchsize=3": "batch_size",
    "masking.raito=0.5": "masking.ratio",
    "decoder.dept=2": "decoder.depth",
    "model.widht=2": "model.width",
    "objective.normalise=true": "objective.normalize",
    "data.imagesize=16": "data.image_size",
    "trainer.device=1": "trainer.devices",
    "data=fodler": "folder",
    "model=bse": "base",
    "logger=wanbd": "wandb",
    "experiment=cifr10": "cifar10",
    "dta=folder": "data",
    "optm=adamw": "optim",
}
SAID = {
    ("callbacks.probe_images=9",): "callbacks.probe_images is no option any more, leave it out: the probe is solved on",
    ("data.root=x",): "data.root is not an option here: it belongs to data=",
    ("data=folder", "data.root=x", "epochs=3", "data.rot=y"): "data.rot is not an option here: did you mean data.root?",
    (
        "seed=1,2",
    ): "seed=1,2 is several values: -m sweeps over them, and a comma inside a value is quoted, seed=\"'a,b'\"",
    ("+epochss=1",): "+epochss=1 adds what nothing reads",
    ("+model.foo=1",): "model.foo=1 is not an option of model=",
    ("experiment=mae_bas",): "experiment=mae_bas does not exist: did you mean mae_base_",
    ("masking=checkers",): "masking=checkers does not exist: choose one of block, corruption, grid, random",
}


@pytest.mark.parametrize("root", ROOTS)
def test_what_is_misspelt_names_the_nearest(root: str) -> None:
    for override, nearest in MISSPELT.items():
        if root == "finetune" and override.startswith(tuple(FIRST)):
            continue
        with pytest.raises(ValueError, match=rf"did you mean {nearest}\?") as raised:
            compose(root, [override])
        assert override.partition("=")[0] in str(raised.value)
        assert "\n" not in str(raised.value)


def test_what_is_wrong_is_said_in_these_words() -> None:
    for overrides, wanted in SAID.items():
        with pytest.raises(ValueError, match=r".") as raised:
            compose("pretrain", overrides)
        assert wanted in str(raised.value)
        assert "\n" not in str(raised.value)
        assert "_mae" not in str(raised.value)  # what recipes share is none itself
    with pytest.raises(ValueError, match=r"protocol\.sweep is not an option here: it belongs to protocol=linear_probe"):
        compose("finetune", ["protocol=mlp_probe", "protocol.sweep=true"])
    with pytest.raises(ValueError, match="protocol=linear does not exist: did you mean linear_probe"):
        compose("finetune", ["protocol=linear"])
    with pytest.raises(ValueError, match=r"data\.root=/it's.*cannot be parsed.*quote"):
        compose("pretrain", ["data=folder", "data.root=/it's"])


def test_arguments_of_a_class_are_checked_against_it() -> None:
    with pytest.raises(ValueError, match="masking") as raised:
        compose(
            "pretrain",
            ["epochs=0", "masking.ratio=wide", "decoder.depth=1.5", "objective.normalize=perhaps", "model.heads=x"],
        )
    message = str(raised.value)
    for part in (
        "epochs=0",
        "masking.ratio='wide'",
        "decoder.depth=1.5",
        "objective.normalize='perhaps'",
        "model.heads='x'",
    ):
        assert part in message
    assert "\n" not in message
    with pytest.raises(ValueError, match=r"masking\.ratio=null is not a value, and nothing chooses one"):
        compose("pretrain", ["masking.ratio=null"])
    for group in ("masking", "decoder", "objective"):
        with pytest.raises(ValueError, match=rf"{group}\.name='maybe' is unknown"):
            compose("pretrain", [f"{group}.name=maybe"])
    # With a plus sign and without: what no file lists, and the class takes.
    for plus in ("", "+", "++"):
        values = compose_values("pretrain", [f"{plus}decoder.mlp_ratio=2.0", f"{plus}model.options.init_values=1e-5"])
        assert values["decoder"]["mlp_ratio"] == 2.0
        assert values["model"]["options"] == {"init_values": 1e-5}


def test_a_config_that_was_composed_is_ones_own() -> None:
    # Compositions are kept: what a run changes in its config must not be seen by the next one.
    before = compose_values("pretrain")
    changed = compose_values("pretrain")
    changed["model"]["options"]["a"] = 1
    changed["optim"]["betas"].append(3)
    assert compose_values("pretrain") == before


def test_composing_leaves_hydra_as_it_was() -> None:
    # Within a script's main there is a Hydra already, whose sweep goes on.
    state = GlobalHydra.instance()
    marker: Any = object()
    before, state.hydra = state.hydra, marker
    try:
        compose_values("pretrain", ["seed=4711"])
        assert state.hydra is marker
    finally:
        state.hydra = before


def test_the_environment_is_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("/a", "/b"):
        monkeypatch.setitem(os.environ, "MY_RUNS", folder)
        assert compose_values("pretrain", ["run_dir=${oc.env:MY_RUNS}"])["run_dir"] == folder


def test_a_sweep_is_checked_by_its_first_values() -> None:
    assert first_value("seed=3,4") == "seed=3"
    assert first_value("seed=3") == "seed=3"
    assert first_value("checkpoint='a,b'") == "checkpoint='a,b'"


def test_recipes_are_found_inside_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mae.config import composing

    inside = tmp_path / "mae" / "conf"
    inside.mkdir(parents=True)
    monkeypatch.setattr(composing, "__file__", str(tmp_path / "mae" / "config" / "composing.py"))
    assert composing.config_folder() == inside
