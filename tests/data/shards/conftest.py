"""Shards of three splits' names."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.tarring import numbered, write_tar


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    write_tar(tmp_path / "set-train-000.tar", numbered(0, 8))
    write_tar(tmp_path / "set-train-001.tar", numbered(8, 4))
    write_tar(tmp_path / "set-validation-000.tar", numbered(12, 3))
    return tmp_path
