"""Importing is cheap: what is heavy comes with its first use."""

from __future__ import annotations

import subprocess
import sys

import pytest

import mae
from tests.runs import REPOSITORY

CODE = """
import sys
import mae
heavy = {"torch", "timm", "lightning", "hydra", "safetensors", "numpy", "pandas", "sklearn"}
print(sorted(heavy & set(sys.modules)))
print(set(mae.__all__) <= set(dir(mae)))
print(mae.MaskPlan.__module__, "torch" in sys.modules, "timm" in sys.modules)
"""


def test_import_mae_loads_nothing_heavy_until_a_name_is_used() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["[]", "True", "mae.masking.plan True False"], done.stderr


def test_every_public_name_is_there_and_no_other() -> None:
    for name in mae.__all__:
        assert getattr(mae, name).__module__.startswith("mae.")
    with pytest.raises(AttributeError, match="module 'mae' has no attribute 'MaskPlans'"):
        _ = mae.MaskPlans  # type: ignore[attr-defined]
