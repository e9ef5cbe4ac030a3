"""The house: imports run one way, frameworks stay in their rooms, files are short and have names of their own."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Callable
from graphlib import CycleError, TopologicalSorter
from itertools import combinations
from pathlib import Path

import pytest

from tests.runs import REPOSITORY

PACKAGE = REPOSITORY / "mae"

# From the bottom to the top: a room may import itself and what stands on lines above its own, not its neighbours on a line.
ORDER = (
    ("components",),
    ("masking", "objectives", "optim"),
    ("models",),
    ("checkpoints",),
    ("data",),
    ("evaluation",),
    ("training",),
    ("report",),
    ("config",),
    ("run",),
    ("downstream",),
    ("cli",),
)
ROOMS = tuple(room for line in ORDER for room in line)
# Lower rooms that a room does without all the same.
APART = {"data": {*ROOMS[: ROOMS.index("data")]}, "evaluation": {"checkpoints"}}

# Where each framework may be imported: rooms, folders or files.
FRAMEWORKS = {
    "hydra": ("config", "cli/script.py"),
    "omegaconf": ("config", "cli/script.py", "run/folder.py"),
    "pydantic": ("components", "config"),
    "lightning": ("data/datamodule.py", "training", "run", "downstream"),
    "wandb": ("training/loggers.py",),
    "matplotlib": ("report",),
    "jinja2": ("report",),
    "typer": ("cli",),
}
OPTIONAL = ("wandb", "transformers", "tifffile", "webdataset", "datasets", "gradio", "onnx", "onnxruntime")
"""What only some users have: imported in the function that needs it, never with its module."""

LONGEST_FILE, LARGEST_FOLDER, LONGEST_SCRIPT = 300, 14, 60
FILES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = ("train_pretrain.py", "train_finetune.py")


def named(path: Path) -> str:
    """Return a file below the package as a person writes it."""
    return path.relative_to(PACKAGE).as_posix()


def room(path: Path) -> str:
    return named(path).partition("/")[0]


def module(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(path): path for path in FILES}


def imports(path: Path, *, anywhere: bool = True) -> set[str]:
    """Return every module that a file names in an import: anywhere in it, for the types alone too, or at its top."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in ast.walk(tree) if anywhere else tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{named(path)} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own(path: Path) -> set[str]:
    """Return the modules of the package that a file imports."""
    found = set()
    for name in imports(path):
        while name.startswith("mae") and name not in MODULES:
            name = name.rpartition(".")[0]
        found |= {name} & MODULES.keys()
    return found


def below(name: str) -> set[str]:
    """Return the rooms that a room may import, itself among them."""
    (height,) = (number for number, line in enumerate(ORDER) if name in line)
    return {name, *(lower for line in ORDER[:height] for lower in line)} - APART.get(name, set())


def test_every_room_has_its_place_and_nothing_lies_outside_them() -> None:
    assert {path.name for path in PACKAGE.iterdir() if any(path.rglob("*.py"))} == set(ROOMS)
    assert [path.name for path in PACKAGE.glob("*.py")] == ["__init__.py"]


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_imports_only_rooms_below_it(name: str) -> None:
    wrong = [
        f"{named(path)} imports {other}"
        for path in FILES
        if room(path) == name
        for other in sorted(own(path))
        if other == "mae" or other.split(".")[1] not in below(name)
    ]
    assert wrong == []


def between_rooms() -> dict[str, set[str]]:
    graph: dict[str, set[str]] = {name: set() for name in ROOMS}
    for path in FILES:
        if path.parent != PACKAGE:
            graph[room(path)] |= {other.split(".")[1] for other in own(path) if other != "mae"} - {room(path)}
    return graph


def between_modules() -> dict[str, set[str]]:
    return {name: own(path) - {name} for name, path in MODULES.items()}


@pytest.mark.parametrize("graph", [between_rooms, between_modules])
def test_no_import_runs_in_a_circle(graph: Callable[[], dict[str, set[str]]]) -> None:
    try:
        TopologicalSorter(graph()).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_a_framework_stays_where_it_belongs() -> None:
    wrong = []
    for path in FILES:
        used = {name.partition(".")[0].replace("pytorch_lightning", "lightning") for name in imports(path)}
        for framework in sorted(used & FRAMEWORKS.keys()):
            if not any(f"{named(path)}/".startswith(f"{place}/") for place in FRAMEWORKS[framework]):
                wrong.append(f"{named(path)} imports {framework}")
    assert wrong == []


def test_what_only_some_users_have_is_imported_where_it_is_used() -> None:
    at_the_top = {named(path): {name.partition(".")[0] for name in imports(path, anywhere=False)} for path in FILES}
    assert {name: found & set(OPTIONAL) for name, found in at_the_top.items() if found & set(OPTIONAL)} == {}


def test_files_are_short_and_none_is_called_utils() -> None:
    assert [named(path) for path in FILES if path.name == "utils.py"] == []
    assert [named(path) for path in FILES if length(path) > LONGEST_FILE] == []


def test_folders_are_small() -> None:
    sizes = {named(path.parent): len(list(path.parent.glob("*.py"))) - 1 for path in FILES}  # __init__.py is none
    assert {name: size for name, size in sizes.items() if size > LARGEST_FOLDER} == {}


def test_neighbours_have_names_of_their_own() -> None:
    files = [path for path in FILES if path.name != "__init__.py"]
    alike = [(one, other) for one, other in combinations(files, 2) if one.name == other.name and neighbours(one, other)]
    assert [f"{named(one)} and {named(other)}" for one, other in alike] == []


def neighbours(one: Path, other: Path) -> bool:
    """Whether two files lie in folders side by side, or in a folder and one within it."""
    here, there = one.parent, other.parent
    return here.parent == there.parent or here == there.parent or there == here.parent


def length(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_short(script: str) -> None:
    assert length(REPOSITORY / script) < LONGEST_SCRIPT


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_loads_next_to_nothing() -> None:
    heavy = {"torch", "timm", "numpy", "lightning", "hydra", "pydantic", "sklearn", "matplotlib"}
    assert run_python(f"import sys, mae; print(sorted(set(sys.modules) & {heavy!r}))") == "[]"


LOAD_LIBRARY = """
import random, sys, torch
before = torch.get_rng_state(), random.getstate(), torch.get_num_threads()
import mae
for name in mae.__all__:
    getattr(mae, name)
assert torch.equal(before[0], torch.get_rng_state())
assert before[1:] == (random.getstate(), torch.get_num_threads())
print(sorted(set(sys.modules) & {frameworks!r}))
"""


@pytest.mark.slow
def test_the_library_alone_loads_no_framework_and_touches_no_global_state() -> None:
    # In a notebook or a service it loads the models, not a trainer; and it draws no random number.
    # timm brings wandb in where it is installed, and wandb pydantic.
    frameworks = {*FRAMEWORKS, "pytorch_lightning"} - {"wandb", "pydantic"}
    assert run_python(LOAD_LIBRARY.format(frameworks=frameworks)) == "[]"


def test_the_public_names_are_those_that_are_promised() -> None:
    import mae

    promised = {"MaskPlan", "create_autoencoder", "load_autoencoder", "load_encoder", "save"}
    assert promised <= set(mae.__all__)
    assert all(hasattr(mae, name) for name in mae.__all__)
    assert set(mae.__all__) <= set(dir(mae))


def test_recipes_travel_with_the_package() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"]["conf"] == "mae/conf"
    assert project["project"]["scripts"]["mae"] == "mae.cli.app:app"


def test_recipes_are_found_inside_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mae.config import composing

    assert composing.config_folder() == REPOSITORY / "conf"
    (tmp_path / "mae" / "conf").mkdir(parents=True)
    monkeypatch.setattr(composing, "__file__", str(tmp_path / "mae" / "config" / "composing.py"))
    assert composing.config_folder() == tmp_path / "mae" / "conf"
