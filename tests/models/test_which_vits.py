"""docs/models.md says what is: a draw of its names is built again."""

from __future__ import annotations

import importlib.util
import random
import re
from types import ModuleType

import pytest
import timm

from tests.runs import REPOSITORY

PAGE = REPOSITORY / "docs" / "models.md"


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("which_vits", REPOSITORY / "benchmarks" / "which_vits.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def listed() -> tuple[list[str], list[str]]:
    """Return the names that the page says work, and those that it says do not."""
    works, refused = [], []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("- Not "):
            refused += re.findall(r"`([^`]+)`", line.partition(": ")[0])
        elif line.startswith("`"):
            works += re.findall(r"`([^`]+)`", line)
    return works, refused


def test_the_page_lists_every_name_of_its_timm_and_counts_them() -> None:
    works, refused = listed()
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (\d+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sum(int(names) for _, names, _ in rows) == len(works) + len(refused)
    assert sum(int(count) for *_, count in rows) == len(works)
    assert not set(works) & set(refused)
    if f"timm {timm.__version__}:" in PAGE.read_text(encoding="utf-8"):
        names = {name for module, *_ in rows for name in timm.list_models(module=module)}
        assert names == {*works, *refused}


@pytest.mark.slow
def test_a_draw_of_the_names_works_or_is_refused_as_the_page_says() -> None:
    refusal = script().refusal
    works, refused = listed()
    known = set(timm.list_models())
    for name in random.Random(0).sample(sorted(known & set(works)), 20):
        assert refusal(name) == "", name
    for name in random.Random(0).sample(sorted(known & set(refused)), 10):
        assert refusal(name).startswith(("model.name=", "image_size ")), name
