"""Imports run one way, and the package brings its recipes."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.runs import REPOSITORY

PACKAGE = REPOSITORY / "mae"
MODULES = sorted(path.relative_to(REPOSITORY) for path in PACKAGE.rglob("*.py"))

FRAMEWORKS = {"lightning", "pytorch_lightning", "hydra", "omegaconf", "wandb"}
# A room may import itself and those listed; the shell around them (pretrain, assembly and so on) may import all.
BELOW = {
    "masking": set(),
    "objectives": set(),
    "optim": set(),
    "models": {"masking", "objectives"},
    "checkpoints": {"models", "masking", "objectives"},
    "data": set(),
    "evaluation": {"data", "models", "masking", "objectives", "optim"},
    "training": {"data", "models", "masking", "objectives", "optim", "checkpoints", "evaluation"},
}
USE_REPORT = {"pretrain.py", "finetune.py", "cli.py", "data_cli.py", "stage.py"}


def imports(path: Path) -> set[str]:
    """Return every module that a file names in an import, wherever it stands, type hints included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse((REPOSITORY / path).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def rooms(path: Path) -> set[str]:
    """Return the rooms and the modules of the shell that a file imports."""
    return {name.split(".")[1] for name in imports(path) if name.startswith("mae.")}


def frameworks(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)} & FRAMEWORKS


@pytest.mark.parametrize("room", BELOW)
def test_a_room_imports_only_rooms_below_it(room: str) -> None:
    files = [path for path in MODULES if path.parts[1] == room]
    assert files
    for path in files:
        assert rooms(path) <= BELOW[room] | {room}, path


@pytest.mark.parametrize("room", ["masking", "objectives", "optim", "models", "checkpoints", "evaluation"])
def test_the_rooms_of_tensors_know_no_framework(room: str) -> None:
    for path in MODULES:
        if path.parts[1] == room:
            assert frameworks(path) == set(), path


def test_the_data_room_knows_lightning_alone() -> None:
    for path in MODULES:
        if path.parts[1] == "data":
            assert frameworks(path) <= {"lightning"}, path


def test_one_module_knows_hydra() -> None:
    assert {path.name for path in MODULES if "hydra" in frameworks(path)} == {"assembly.py"}
    assert {path.name for path in MODULES if "omegaconf" in frameworks(path)} <= {"assembly.py", "run_folder.py"}


def test_wandb_is_imported_where_it_is_used() -> None:
    assert {path.as_posix() for path in MODULES if "wandb" in frameworks(path)} == {"mae/training/loggers.py"}
    # As an extra it may not be there: nothing may import it before it is asked for.
    tree = ast.parse((PACKAGE / "training" / "loggers.py").read_text())
    names = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    assert "wandb" not in names


def test_only_the_top_uses_the_report() -> None:
    for path in MODULES:
        if "report" in rooms(path) and path.parts[1] != "report":
            assert path.name in USE_REPORT or path.parts[1] == "second_stage", path


LOAD_LIBRARY = """
import random, sys, torch
before = torch.get_rng_state(), random.getstate(), torch.get_num_threads()
import mae
assert torch.equal(before[0], torch.get_rng_state())
assert before[1:] == (random.getstate(), torch.get_num_threads())
print(sorted(set(sys.modules) & {frameworks!r}))
"""


def test_the_library_alone_loads_no_framework_and_touches_no_global_state() -> None:
    # `import mae` in a notebook or a service loads the models, not a trainer; and it draws no random number.
    code = LOAD_LIBRARY.format(frameworks=FRAMEWORKS - {"wandb"})  # timm brings wandb in where it is installed
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"


def test_the_public_names_are_those_that_are_promised() -> None:
    import mae

    promised = {"MaskPlan", "create_autoencoder", "load_autoencoder", "load_encoder", "save"}
    assert promised <= set(mae.__all__)
    assert all(hasattr(mae, name) for name in mae.__all__)


def test_files_are_short_and_none_is_called_utils() -> None:
    for path in MODULES:
        assert path.name != "utils.py"
        assert len((REPOSITORY / path).read_text().splitlines()) <= 300, f"{path}: split it by meaning"


@pytest.mark.parametrize("script", ["train_pretrain.py", "train_finetune.py"])
def test_scripts_are_short(script: str) -> None:
    assert len((REPOSITORY / script).read_text().splitlines()) < 60


def test_recipes_travel_with_the_package() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"]["conf"] == "mae/conf"
    assert project["project"]["scripts"]["mae"] == "mae.cli.app:app"


def test_recipes_are_found_inside_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mae.config import composing as assembly

    assert assembly.config_folder() == REPOSITORY / "conf"
    (tmp_path / "mae" / "conf").mkdir(parents=True)
    monkeypatch.setattr(assembly, "__file__", str(tmp_path / "mae" / "assembly.py"))
    assert assembly.config_folder() == tmp_path / "mae" / "conf"
