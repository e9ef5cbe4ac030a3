"""What is checked and counted before anything is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mae.config.choices import Choices, Machine
from mae.config.choosing.images import choose_loading
from mae.config.composing import compose
from mae.data.inspection import Inspection
from tests.runs import job

CONFIG = compose("pretrain")
PHOTOGRAPHS = Inspection(100_000, 3, 300, 200, 500, in_memory=False)


def workers(cores: int, devices: int, nodes: int) -> Any:
    config = CONFIG.model_copy(deep=True)
    config.trainer.num_nodes = nodes
    choices = Choices(config)
    choose_loading(choices, PHOTOGRAPHS, Machine(accelerated=True, cores=cores), devices * nodes)
    return config.data.num_workers


@given(st.integers(1, 256), st.integers(1, 16), st.integers(1, 64))
def test_other_nodes_take_no_cores_from_this_one(cores: int, devices: int, nodes: int) -> None:
    assert workers(cores, devices, nodes) == workers(cores, devices, 1) == max(1, min(16, cores // devices - 1))


def test_96_cores_feed_8_devices_on_any_number_of_nodes() -> None:
    assert workers(96, 8, 8) == workers(96, 8, 1) == 11


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.precision=bf16-true", r"trainer\.precision=bf16-true does not work here"),
        ("trainer.precision=16-mixed", r"trainer\.precision=16-mixed is for GPUs"),
        ("trainer.strategy=fsdp", r"trainer\.strategy=fsdp is not known to keep whole parameters"),
    ],
)
def test_what_would_crash_or_lose_weights_is_refused_before_work_starts(
    tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        job("pretrain", tmp_path / "run", override)
    assert list(tmp_path.iterdir()) == []
