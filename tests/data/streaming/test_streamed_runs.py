"""Whole runs from streams."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.data.streaming.conftest import Serve
from tests.data.streaming.streamed import (
    BARE,
    write_manifest,
    write_shards,
)
from tests.run.test_pretrain import Stop, assert_same_weights
from tests.runs import job

pytest.importorskip("webdataset")


def test_a_whole_run_from_a_local_stream(tmp_path: Path) -> None:
    pattern = write_shards(tmp_path / "shards", 6)
    prepared = job(
        "pretrain",
        tmp_path / "run",
        *BARE,
        "data=webdataset",
        f"data.root='{pattern}'",
        "data.images=48",
        "data.buffer=20",
    )
    assert prepared.setting.config.data.lanes == 4
    assert prepared.setting.config.data.num_workers in (1, 2, 4)
    results = prepared.run()
    assert (results["steps"], results["images_seen"]) == (5, 40)
    assert np.isfinite(results["val_loss"])
    assert not {"knn_top1", "probe_top1"} & set(results)


@pytest.mark.slow
def test_a_whole_run_over_http_with_two_workers(tmp_path: Path, serve: Serve) -> None:
    write_shards(tmp_path, 6)
    write_manifest(tmp_path, train=8)
    overrides = (*BARE, "data=webdataset", "data.num_workers=2", "data.repeats=2")
    results = job("pretrain", tmp_path / "run", *overrides, f"data.root='{serve()}'").run()
    assert (results["steps"], results["images_seen"]) == (10, 80)


@pytest.mark.slow
def test_a_resumed_run_ends_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    pattern = write_shards(tmp_path / "shards", 6)
    given = (*BARE, "data=webdataset", f"data.root='{pattern}'", "data.images=48", "data.num_workers=2", "epochs=2")
    job("pretrain", tmp_path / "whole", *given).run()
    prepared = job("pretrain", tmp_path / "run", *given)
    prepared.trainer.callbacks.insert(0, Stop(1, batch=2))
    with pytest.raises(RuntimeError, match="power cut"):
        prepared.run()
    job("pretrain", tmp_path / "run", "resume=true").run()
    assert_same_weights(tmp_path / "whole", tmp_path / "run")


def test_workers_that_do_not_fit_are_refused_before_work_starts(tmp_path: Path) -> None:
    pattern = write_shards(tmp_path / "shards", 6)
    given = ("data=webdataset", f"data.root='{pattern}'", "data.images=48")
    with pytest.raises(ValueError, match=r"data\.num_workers=3 does not divide data\.lanes=4"):
        job("pretrain", tmp_path / "run", *BARE, *given, "data.num_workers=3")
    with pytest.raises(ValueError, match=r"data\.lanes=9 wants 9 shards for 1 device, and there are 5 to train on"):
        job("pretrain", tmp_path / "run", *BARE, *given, "data.lanes=9", "data.num_workers=0")
    assert not (tmp_path / "run").exists()


def test_the_second_stage_refuses_a_stream(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"data=webdataset is a stream, and labels need random access: download the data, and"
    ):
        job("finetune", None, "checkpoint=null", "data=webdataset", f"data.root='{tmp_path}/train-{{0..3}}.tar'")
