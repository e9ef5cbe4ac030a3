"""A mask, a decoder, an objective and a backbone of a user's own: files in a folder outside, and the package untouched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import mae
from mae.config.composing import compose
from mae.config.schema.roots import FinetuneConfig
from mae.masking.samplers import MASKINGS
from mae.models.backbones.create_backbone import BACKBONES
from mae.models.decoders import DECODERS
from mae.objectives.objective import OBJECTIVES
from mae.run.pretrain import prepare
from tests.runs import QUIET, REPOSITORY

OPTIONS = {
    "masking/columns": "_target_: my_parts.ColumnMasking\ncolumns: 2\n",
    "decoder/mean": "_target_: my_parts.MeanDecoder\nscale: 0.5\n",
    "objective/means": "_target_: my_parts.PatchMeans\npower: 2\n",
    "model/mlp": "_target_: my_parts.PatchMLP\npatch_size: 4\nwidth: 16\n",
}
GIVEN = [path.replace("/", "=") for path in OPTIONS]
RUN = [*QUIET, "epochs=2", "callbacks.pictures=1"]


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a folder of a module and four option files, with another one as the current folder."""
    folder = tmp_path / "mine"
    for path, content in OPTIONS.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{path}.yaml").write_text(f"# My own.\n{content}", encoding="utf-8")
    shutil.copy(REPOSITORY / "tests" / "outside.py", folder / "my_parts.py")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield folder
    sys.modules.pop("my_parts", None)


def ready(outside: Path | None, overrides: Sequence[str]) -> Any:
    return prepare(compose("pretrain", overrides, outside), overrides)


def script(name: str, *given: str, path: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    command = [sys.executable, str(REPOSITORY / name), *given]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_parts_of_ones_own_train_resume_and_load(outside: Path) -> None:
    job = ready(outside, ["run_dir=run", *GIVEN, *RUN])
    names = {type(part).__name__ for part in (job.module.sampler, job.module.model.decoder, job.module.model.objective)}
    assert names == {"ColumnMasking", "MeanDecoder", "PatchMeans"}
    assert job.module.sampler.columns == 2
    assert type(job.module.model.encoder).__name__ == "PatchMLP"
    first = job.run()
    assert first["val_loss"] > 0

    # The run folder says where the classes are: neither the options' files nor the overrides are needed again.
    with pytest.raises(ValueError, match="epochs=3 differs from the 2"):
        ready(None, ["run_dir=run", "resume=true", "epochs=3"])
    again = ready(None, ["run_dir=run", "resume=true", *QUIET])
    assert type(again.module.model.decoder).__name__ == "MeanDecoder"
    assert again.run()["val_loss"] == pytest.approx(first["val_loss"])

    images = torch.rand(2, 1, 16, 16)
    wanted = again.module.model.eval().encoder(images)
    for path in ("run/checkpoints/last.ckpt", "run/encoder"):
        torch.testing.assert_close(mae.load_encoder(path).eval()(images), wanted)
    loaded = mae.load_autoencoder("run/checkpoints/last.ckpt").eval()
    plan = again.module.sampler(2, loaded.grid, torch.Generator().manual_seed(0))
    torch.testing.assert_close(loaded(images, plan).loss, again.module.model(images, plan).loss)


def test_a_class_is_named_on_the_command_line(outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What the default option's file holds, such as ratio, is not the class's; with a plus sign and without.
    monkeypatch.chdir(outside)
    for plus in ("", "+"):
        config = compose("pretrain", [f"{plus}masking._target_=my_parts.ColumnMasking", f"{plus}masking.columns=3"])
        assert config.masking.options == {"columns": 3}
        assert config.masking.class_path == "my_parts.ColumnMasking"
    job = ready(None, ["run_dir=run", "masking._target_=my_parts.ColumnMasking", "model=digits", *RUN])
    assert job.module.sampler.check(job.module.model.grid) == 4


def test_a_part_that_is_misspelt_is_one_line(outside: Path) -> None:
    wrong = {
        "masking.colums=1": "masking.colums=1 is not an option of masking=my_parts.ColumnMasking: did you mean masking.columns?",
        "masking.columns=few": "masking.columns='few' is not a whole number",
        "decoder._target_=my_parts.MeanDecoders": "cannot be imported",
        "objective._target_=my_parts.ColumnMasking": "is no class that derives from mae.objectives.objective.Objective",
        "masking=colums": "masking=colums does not exist: did you mean columns?",
    }
    for override, wanted in wrong.items():
        key = override.partition("=")[0]
        given = [*(text for text in GIVEN if text.partition("=")[0] != key), override]
        with pytest.raises(ValueError, match=r".") as raised:
            compose("pretrain", given, outside)
        assert wanted in str(raised.value)
        assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="--config-dir nowhere is not a folder"):
        compose("pretrain", [], Path("nowhere"))


def test_a_backbone_of_ones_own_composes_with_the_second_stage(outside: Path) -> None:
    config = compose("finetune", ["checkpoint=null", "model=mlp", "protocol=finetune"], outside)
    assert isinstance(config, FinetuneConfig)
    assert config.model.class_path == "my_parts.PatchMLP"
    assert config.model.options == {"patch_size": 4, "width": 16}


def test_a_part_of_the_package_is_one_line_of_registration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {
        MASKINGS: ("masking", "ColumnMasking", "columns=2"),
        DECODERS: ("decoder", "MeanDecoder", "scale=0.5"),
        OBJECTIVES: ("objective", "PatchMeans", "power=1"),
        BACKBONES: ("model", "PatchMLP", "width=24"),
    }
    given = []
    for registry, (group, name, option) in parts.items():
        monkeypatch.setattr(registry, "classes", {**registry.classes, "vit_new": f"tests.outside.{name}"})
        given += [f"{group}.name=vit_new", f"{group}.{option}"]

    job = ready(None, [f"run_dir={tmp_path / 'run'}", *given, *RUN])

    sampler, model = job.module.sampler, job.module.model
    made = [type(part).__name__ for part in (sampler, model.decoder, model.objective, model.encoder)]
    assert made == [name for _, name, _ in parts.values()]
    assert (sampler.columns, model.decoder.scale, model.objective.power, model.encoder.width) == (2, 0.5, 1, 24)
    with pytest.raises(
        ValueError, match=r"masking\.colums=2 is not an option of masking=vit_new: did you mean masking\.columns"
    ):
        compose("pretrain", ["masking.name=vit_new", "masking.colums=2"])


@pytest.mark.slow
def test_parts_of_ones_own_train_through_the_script(outside: Path) -> None:
    given = ("--config-dir", str(outside), "run_dir=run", *GIVEN, *RUN)
    for path, extra in (("", ()), ("", ("resume=true",))):
        done = script("train_pretrain.py", *given, *extra, path=path)
        assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(Path("run/results.json").read_text())["val_loss"] > 0
    shown = script("train_pretrain.py", "--config-dir", str(outside), "--help", "masking=columns")
    assert "masking.columns" in shown.stdout and "My own." in shown.stdout, shown.stderr


@pytest.mark.slow
def test_an_encoder_of_ones_own_is_tuned_by_the_second_stage(outside: Path) -> None:
    ready(outside, ["run_dir=run", *GIVEN, *RUN]).run()
    given = (f"--config-dir={outside}", "run_dir=tuned", "checkpoint=run", "protocol=linear_probe", *QUIET, "epochs=1")
    done = script("train_finetune.py", *given, "labels_per_class=2", "baselines=false")
    assert done.returncode == 0, done.stderr[-2000:]
