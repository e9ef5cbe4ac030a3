"""Files that are read wherever they lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mae.data.open_splits import open_splits
from mae.data.streaming import remote
from mae.data.streaming.remote import RemoteFile, UnreachableError
from tests.data.streaming.conftest import Serve
from tests.data.streaming.streamed import (
    options,
    write_shards,
)

pytest.importorskip("webdataset")


def test_a_file_comes_over_http_as_it_is(tmp_path: Path, serve: Serve) -> None:
    data = np.random.default_rng(0).bytes(300_000)
    (tmp_path / "file").write_bytes(data)
    for url in (f"{serve()}/file", str(tmp_path / "file")):
        with RemoteFile(url) as file:
            assert b"".join(iter(lambda: file.read(10_240), b"")) == data
            assert file.tail == data[-512:]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("most", [None, 70_000])
def test_two_failures_are_put_up_with(tmp_path: Path, serve: Serve, most: int | None) -> None:
    # The connection breaks at the beginning, or in the middle: then it is read on from there.
    data = np.random.default_rng(0).bytes(300_000)
    (tmp_path / "file").write_bytes(data)
    with RemoteFile(f"{serve(failures=2, most=most)}/file") as file:
        assert b"".join(iter(lambda: file.read(10_240), b"")) == data


@pytest.mark.usefixtures("impatient")
def test_a_server_that_always_fails_is_named(tmp_path: Path, serve: Serve) -> None:
    write_shards(tmp_path, 3)
    url = f"{serve(failures=99)}/train-{{000..002}}.tar"
    with pytest.raises(UnreachableError, match=r"http://127.*/train-002\.tar cannot be read, after 3 attempts \(503"):
        open_splits(**options(url, images=24))


def test_a_shard_that_is_not_there_is_named_at_once(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote.time, "sleep", lambda seconds: pytest.fail("waits for what will not come"))
    write_shards(tmp_path, 3)
    with pytest.raises(UnreachableError, match=r"train-003\.tar does not exist"):
        open_splits(**options(f"{serve()}/train-{{000..003}}.tar", images=24))
    with pytest.raises(UnreachableError, match=r"train-002\.tar cannot be read \(403"):
        open_splits(**options(f"{serve(failures=9, status=403)}/train-{{000..002}}.tar", images=24))
