"""Data sets opened by the name of their source."""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from typing import Any, get_args

import pytest

from mae.config.schema.data import AnyData, Data
from mae.data.open_splits import BATCH_KEYS, SOURCES, is_stream, open_splits, refuse_stream
from tests.data.drawing import write_folder


def test_each_key_of_the_config_group_belongs_to_the_source_or_to_batches() -> None:
    assert set(Data.model_fields) == BATCH_KEYS
    groups = get_args(get_args(AnyData)[0])
    named = {get_args(group.model_fields["source"].annotation)[0]: group for group in groups}
    assert set(named) == set(SOURCES)
    for source, group in named.items():
        taken = set(signature(SOURCES[source]).parameters) - {"run_dir"}
        assert set(group.model_fields) - {"source"} - BATCH_KEYS == taken


def test_an_unknown_source_lists_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match=r"'zip'.*arrays, digits, folder, image_folder, huggingface, torchvision, webdataset"
    ):
        open_splits("zip")


def test_keys_of_batches_are_passed_over_and_those_of_other_sources_refused(tmp_path: Path) -> None:
    splits = open_splits("folder", root=str(write_folder(tmp_path, 3)), image_size=16, num_workers=None, index=None)
    # Data that are no stream are their own sample.
    assert splits.train.stream_shards == 0
    assert splits.train.sample is splits.train
    with pytest.raises(ValueError, match=r"data\.pages=images is not for data=folder, which takes root, index: leave"):
        open_splits("folder", root=str(tmp_path), pages="images")
    with pytest.raises(ValueError, match=r"data\.root=x is not for data=digits, which takes nothing"):
        open_splits("digits", root="x")


def test_streams_are_told_by_a_key_or_their_root() -> None:
    cases: list[tuple[str, dict[str, Any], bool]] = [
        ("folder", {"root": "http://host/{a,b}"}, False),
        ("webdataset", {"root": "shards"}, False),
        ("webdataset", {"root": "shards", "stream": True, "lanes": 2}, True),
        ("webdataset", {"root": "http://host/0.tar"}, True),
        ("webdataset", {"root": "train-{0..3}.tar"}, True),
        ("huggingface", {"root": "x/y", "stream": True, "flip": None}, True),
        ("huggingface", {"root": "x/y"}, False),
        ("digits", {}, False),
    ]
    for source, options, expected in cases:
        assert is_stream(source, **options) == expected
        if expected:
            with pytest.raises(ValueError, match=rf"data={source} is a stream, and labels need random access"):
                refuse_stream(source, **options)
        else:
            refuse_stream(source, **options)


def test_keys_of_streams_alone_are_refused_where_there_is_none(tmp_path: Path) -> None:
    for source, keys in (("webdataset", ("images", "lanes", "val_root")), ("huggingface", ("images", "lanes"))):
        for key in keys:
            with pytest.raises(
                ValueError, match=rf"data\.{key}=8 is for streams alone: leave it out, or set data\.stream=true"
            ):
                open_splits(source, root=str(tmp_path), **{key: 8})
