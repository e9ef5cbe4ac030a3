"""Which shards a pattern names."""

from __future__ import annotations

from pathlib import Path

import pytest

from mae.data.streaming.shard_urls import expand, find_shards
from tests.data.streaming.streamed import (
    write_shards,
)

pytest.importorskip("webdataset")


def test_patterns_name_shards_in_order(tmp_path: Path) -> None:
    assert expand("http://host/{a,b}-{08..10}.tar::s3://bucket/c.tar") == [
        *(f"http://host/{letter}-{number}.tar" for letter in "ab" for number in ("08", "09", "10")),
        "s3://bucket/c.tar",
    ]
    write_shards(tmp_path, 3, 1)
    assert [Path(url).name for url in find_shards(f"{tmp_path}/train-*.tar", "train").urls] == [
        f"train-{number:03}.tar" for number in range(3)
    ]
    with pytest.raises(ValueError, match=r"train-003\.tar, which data\.root names, does not exist"):
        expand(f"{tmp_path}/train-{{000..003}}.tar")
