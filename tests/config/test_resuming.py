"""A run that goes on has the config that it was started with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mae.config.composing import compose, compose_values
from mae.config.reading import leaves
from mae.config.resuming import resumed_config
from mae.config.schema.roots import FinetuneConfig

Resume = Callable[..., dict[str, Any]]
FIRST = ["optim.base_lr=0.01", "data=fashion_mnist", "data.root=/old", "model=tiny", "masking.ratio=0.6"]


@pytest.fixture
def resume(tmp_path: Path) -> Resume:
    """Compose and complete a run, and resume it with overrides; return its values, flat."""

    def make(first: list[str], again: list[str]) -> dict[str, Any]:
        started = compose("pretrain", [f"run_dir={tmp_path}", *first])
        started.epochs, started.batch_size = started.epochs or 5, started.batch_size or 32
        started.data.image_size = started.data.image_size or 16
        started.data.mean = [0.25]
        overrides = [f"run_dir={tmp_path}", "resume=true", *again]
        return leaves(resumed_config(compose("pretrain", overrides), started.plain(), overrides).plain())

    return make


def test_the_run_folder_alone_is_enough_to_resume(resume: Resume) -> None:
    flat = resume(FIRST, [])
    assert (flat["optim.base_lr"], flat["masking.ratio"], flat["model.width"]) == (0.01, 0.6, 192)
    assert (flat["data.source"], flat["data.name"], flat["data.root"]) == ("torchvision", "fashion_mnist", "/old")
    assert (flat["epochs"], flat["data.image_size"], flat["data.mean"]) == (5, 16, [0.25])
    assert flat["resume"] is True


def test_repeating_the_first_command_resumes_it(resume: Resume) -> None:
    assert resume(FIRST, FIRST) == resume(FIRST, [])


def test_where_and_how_fast_it_runs_may_change(resume: Resume) -> None:
    again = ["data=fashion_mnist", "data.root=/new", "data.num_workers=2", "trainer.devices=3", "trainer.accumulate=2"]
    flat = resume(FIRST, again)
    assert (flat["data.root"], flat["data.num_workers"]) == ("/new", 2)
    assert (flat["trainer.devices"], flat["trainer.accumulate"]) == (3, 2)


def test_keys_that_an_earlier_version_had_are_left_out(tmp_path: Path) -> None:
    overrides = [f"run_dir={tmp_path}", "resume=true"]
    config = compose("pretrain", overrides)
    stored = config.plain()
    stored["callbacks"] = {
        **{key: value for key, value in stored["callbacks"].items() if key != "share"},
        "knn_bank": 10_000,
        "knn_queries": 2_000,
        "probe_images": 10_000,
        "probe_memory": 256,
    }
    resumed = resumed_config(config, stored, overrides)
    assert (resumed.callbacks.knn_bank, resumed.callbacks.share) == (10_000, 0.03)
    assert "probe_images" in stored["callbacks"]  # what was read from the folder is not changed


CHANGES = {
    "optim.base_lr=0.02": ("0.01", "0.02"),
    "masking.ratio=0.75": ("0.6", "0.75"),
    "model=base": ("vit_tiny", "vit_base"),
    "epochs=6": ("5", "6"),
    "batch_size=64": ("32", "64"),
    "seed=1": ("0", "1"),
    "data.image_size=32": ("16", "32"),
}


def test_what_is_computed_may_not_change(resume: Resume) -> None:
    for override, (then, now) in CHANGES.items():
        with pytest.raises(ValueError, match=override.partition("=")[0]) as raised:
            resume(FIRST, [override])
        assert then in str(raised.value) and now in str(raised.value)


def test_a_run_of_the_other_stage_is_refused() -> None:
    first, second = compose_values("pretrain"), compose_values("finetune", ["checkpoint=null"])
    for root, stored in (("finetune", first), ("pretrain", second)):
        with pytest.raises(ValueError, match="holds a run of train_"):
            resumed_config(compose(root, ["run_dir=x"]), stored, [])


def test_runs_of_earlier_versions_go_on() -> None:
    # They had no group debug, and a second stage kept the decoder that a preset of the model once brought.
    stored = compose_values("finetune", ["checkpoint=null", "protocol=finetune", "epochs=3"])
    del stored["debug"]
    stored["decoder"] = {"width": 512, "depth": 8, "heads": 16}
    config = resumed_config(compose("finetune", ["run_dir=x", "resume=true"]), stored, ["run_dir=x", "resume=true"])
    assert isinstance(config, FinetuneConfig)
    assert (config.epochs, config.debug.overfit) == (3, False)
