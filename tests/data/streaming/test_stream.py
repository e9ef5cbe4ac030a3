"""Streams: which images come, in which order, whatever reads them and wherever they lie."""

from __future__ import annotations

import http.server
import io
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mae.data.datamodule import ImageData
from mae.data.inspection import inspect_images
from mae.data.loading.batches import Batch
from mae.data.open_splits import open_splits
from mae.data.reading.decode import UnreadableImageError
from mae.data.reading.transforms import EvalTransform
from mae.data.shards.manifest import Manifest, Shard, Split
from mae.data.splits import Splits
from mae.data.streaming import remote
from mae.data.streaming.remote import RemoteFile, UnreachableError
from mae.data.streaming.shard_urls import expand, find_shards
from mae.data.streaming.stream import Encoded, EncodedSource, Shards, Stream, choose_readers, shards_held_out
from mae.data.streaming.stream_order import ShardReader, StreamDataset, StreamSampler, shuffled
from mae.data.streaming.tar_streams import TarShards
from tests.data.drawing import smooth
from tests.run.test_pretraining import Stop, assert_same_weights
from tests.runs import job

pytest.importorskip("webdataset")


def png(number: int, kind: str = "PNG") -> bytes:
    """Draw an image of one colour, another one for each number below 512."""
    colour = [number // 64 % 8, number // 8 % 8, number % 8]
    file = io.BytesIO()
    Image.fromarray(np.full((16, 16, 3), np.array(colour) * 32 + 16, np.uint8)).save(file, kind)
    return file.getvalue()


def number_of(image: torch.Tensor) -> int:
    """Return which one of ``png`` an image (3, H, W) shows."""
    red, green, blue = (int(value) // 32 for value in image[:, 0, 0])
    return 64 * red + 8 * green + blue


def write_shard(path: Path, numbers: range, *, suffix: str = "png") -> Path:
    """Write a tar of samples, each of an image and a class, as webdataset does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number in numbers:
            for name, data in ((f"{number:04}.{suffix}", png(number)), (f"{number:04}.cls", b"1")):
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    return path


def write_shards(root: Path, shards: int, images: int = 8, split: str = "train", start: int = 0) -> str:
    """Write shards of so many images each; return their pattern."""
    for shard in range(shards):
        first = start + shard * images
        write_shard(root / f"{split}-{shard:03}.tar", range(first, first + images))
    return f"{root}/{split}-{{000..{shards - 1:03}}}.tar"


def write_manifest(root: Path, **splits: int) -> None:
    """Write the manifest of shards of so many images each."""
    parts = {}
    for split, images in splits.items():
        shards = tuple(Shard(path.name, images, 0, "") for path in sorted(root.glob(f"{split}-*.tar")))
        parts[split] = Split(shards, images * len(shards), (), 3, 16, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    Manifest({}, {}, parts).write(root)


def options(root: str | Path, **changes: Any) -> dict[str, Any]:
    plain = {"stream": False, "images": None, "buffer": 1000, "lanes": None, "val_root": None}
    return {"source": "webdataset", "root": str(root), **plain, **changes}


class Drawn(Shards):
    """Shards in memory."""

    def __init__(self, shards: int, images: int) -> None:
        super().__init__([f"shard {shard}" for shard in range(shards)], shards * images)
        self.each = images

    def read(self, shard: int) -> Iterator[Encoded]:
        for number in range(shard * self.each, (shard + 1) * self.each):
            yield Encoded(f"{number:04}", png(number))


def stream(shards: Shards | int = 8, images: int = 8, *, buffer: int = 40, readers: int | None = None) -> Stream:
    made = Drawn(shards, images) if isinstance(shards, int) else shards
    sample = EncodedSource([Encoded("sample", png(0))])
    return Stream(made, np.arange(len(made.names)), sample, buffer, readers)


def build(source: Stream, **changes: Any) -> ImageData:
    given: dict[str, Any] = {
        "image_size": (16, 16),
        "channels": 3,
        "effective_batch": 4,
        "micro_batch": 4,
        "min_scale": 0.3,
        "flip": True,
        "num_workers": 0,
        "seed": 5,
    }
    return ImageData(Splits(source, source.sample, None, ""), **{**given, **changes})


def epoch(data: ImageData, number: int = 0, loader: Any = None) -> list[Batch]:
    loader = data.train_dataloader() if loader is None else loader
    loader.sampler.set_epoch(number)
    return list(loader)


def numbers(batches: list[Batch]) -> list[int]:
    return [number_of(image) for batch in batches for image in batch.images]


def rank_numbers(source: Stream, rank: int, world: int, **changes: Any) -> list[int]:
    """Return the images of a rank in an epoch, in order."""
    given = {"seed": 5, "batch": 4, "readers": source.readers_for(world, 0), "rank": rank, "world": world, **changes}
    dataset = StreamDataset(source, EvalTransform((16, 16)), 3, **given)
    return [number_of(dataset[key].images[0]) for key in StreamSampler(len(source), 4 * world, world)]


@pytest.mark.parametrize("buffer", [1, 40, 1000])
def test_an_epoch_holds_each_image_once(buffer: int) -> None:
    seen = numbers(epoch(build(stream(buffer=buffer))))
    assert sorted(seen) == list(range(64))
    assert seen != sorted(seen)


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    first = numbers(epoch(build(stream()), 3))
    assert first == numbers(epoch(build(stream()), 3))
    assert first != numbers(epoch(build(stream()), 4))
    assert first != numbers(epoch(build(stream(), seed=6), 3))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_workers_change_neither_order_nor_pixels() -> None:
    alone = build(stream())
    for workers in (2, 4):
        helped = build(stream(), num_workers=workers)
        loader = helped.train_dataloader()
        for number in (0, 1):  # persistent workers live across epochs
            for one, other in zip(epoch(alone, number), epoch(helped, number, loader), strict=True):
                assert torch.equal(one.images, other.images)
                assert torch.equal(one.indices, other.indices)


@pytest.mark.parametrize(("done", "workers"), [(1, 0), (6, 0), (7, 2), (15, 0)])
def test_a_resume_goes_on_with_the_very_next_batch(done: int, workers: int) -> None:
    # 11 images a shard: shards end within batches.
    source = stream(8, 11)
    whole = epoch(build(source), 2)
    resumed = build(source, num_workers=workers).train_dataloader()
    resumed.load_state_dict({"batches": done})
    rest = epoch(build(source), 2, resumed)
    assert len(rest) == len(whole) - done == 22 - done
    assert all(torch.equal(a.images, b.images) for a, b in zip(whole[done:], rest, strict=True))


def test_a_resume_decodes_nothing_that_was_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    original = Encoded.open
    monkeypatch.setattr(Encoded, "open", lambda image: opened.append(image.name) or original(image))
    loader = build(stream()).train_dataloader()
    loader.load_state_dict({"batches": 14})
    assert len(epoch(build(stream()), 0, loader)) == 2
    assert len(opened) == 8


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_an_epoch_without_overlap(world: int) -> None:
    parts = [rank_numbers(stream(), rank, world) for rank in range(world)]
    assert {len(part) for part in parts} == {64 // world}
    assert sorted(number for part in parts for number in part) == list(range(64))
    shards = [{number // 8 for number in part} for part in parts]
    assert sum(len(part) for part in shards) == 8


def test_a_reader_whose_shards_end_starts_over_in_another_order() -> None:
    reader = ShardReader(Drawn(3, 4), [0, 1, 2], 1, "seed")
    laps = [[reader.take().image.name for _ in range(12)] for _ in range(3)]
    assert all(len(set(lap)) == 12 for lap in laps)
    assert laps[0] != laps[1]


def test_an_image_that_comes_again_is_cropped_anew() -> None:
    reader = ShardReader(Drawn(1, 1), [0], 1, "seed")
    assert len({reader.take().chance for _ in range(3)}) == 3


def test_steps_are_fixed_where_images_do_not_divide() -> None:
    data = build(stream(5, 7), effective_batch=8, micro_batch=8)
    assert data.steps_per_epoch == len(epoch(data)) == 4


def test_a_buffer_mixes_and_loses_nothing() -> None:
    import random

    images = [Encoded(str(number), b"") for number in range(50)]
    mixed = list(shuffled(iter(images), 10, random.Random(0)))
    assert sorted(mixed) == sorted(images)
    # What comes first was among the first in the buffer.
    assert int(mixed[0].name) <= 10
    assert list(shuffled(iter(images), 1, random.Random(0))) == images


class Waves(Shards):
    """Shards of one image each, in which each crop is another."""

    def read(self, shard: int) -> Iterator[Encoded]:
        file = io.BytesIO()
        Image.fromarray(smooth(20, 24, 3, shard)).save(file, "PNG")
        yield Encoded(self.names[shard], file.getvalue())


def test_crops_are_those_of_the_image_wherever_it_comes() -> None:
    # Other readers and another buffer give another order; an image is cropped in the same way in the same epoch.
    shown: list[list[bytes]] = []
    for readers, buffer in ((8, 40), (2, 7)):
        data = build(stream(Waves([str(number) for number in range(32)], 32), readers=readers, buffer=buffer))
        shown.append([image.numpy().tobytes() for batch in epoch(data) for image in batch.images])
    assert shown[0] != shown[1]
    assert sorted(shown[0]) == sorted(shown[1])


def test_repeats_are_crops_of_one_image_side_by_side() -> None:
    data = build(stream(), repeats=2)
    batches = epoch(data)
    assert len(batches) == data.steps_per_epoch == 32
    seen = numbers(batches)
    assert seen[::2] == seen[1::2]
    assert sorted(seen[::2]) == list(range(64))


class Jpegs(Drawn):
    """The same images as JPEGs."""

    def read(self, shard: int) -> Iterator[Encoded]:
        for image in super().read(shard):
            yield Encoded(image.name, png(int(image.name), "JPEG"))


@pytest.mark.parametrize("workers", [0, 2])
def test_jpegs_may_be_decoded_where_the_model_is(workers: int) -> None:
    data = build(stream(Jpegs(8, 8)), decode="device", num_workers=workers)
    assert numbers(epoch(data)) == numbers(epoch(build(stream())))


class Damaged(Drawn):
    """Shards of which the image 5 is none, and the first shard is cut off after 6."""

    def read(self, shard: int) -> Iterator[Encoded]:
        for image in super().read(shard):
            yield Encoded("five", b"garbage") if image.name == "0005" else image
            if image.name == "0006":
                raise UnreadableImageError("shard 0 is cut off")


def test_damage_is_named_and_batches_keep_their_size() -> None:
    source = stream(Damaged(8, 8))
    with pytest.warns(UserWarning, match="cannot be read as an image|is cut off"):
        batches = epoch(build(source))
    assert [len(batch.images) for batch in batches] == [4] * 16
    messages = [message for batch in batches for message in batch.unreadable]
    assert sum(message.startswith("five cannot be read") for message in messages) == 1
    assert "shard 0 is cut off" in messages


@pytest.mark.filterwarnings("ignore:(five|shard 0)")
def test_damage_does_not_move_what_comes_after_it() -> None:
    # What stands in comes again in its own place, or a resume would have to decode to know where it is.
    whole = numbers(epoch(build(stream(8, 8))))
    source = stream(Damaged(8, 8), readers=8)
    seen = numbers(epoch(build(source)))
    assert sum(a != b for a, b in zip(whole, seen, strict=True)) <= 8  # the reader of the damaged shard alone
    for done in (1, 4, 9, 14):
        loader = build(source).train_dataloader()
        loader.load_state_dict({"batches": done})
        assert numbers(epoch(build(source), 0, loader)) == seen[4 * done :]


def test_shards_that_hold_nothing_end_the_run() -> None:
    class Empty(Drawn):
        def read(self, shard: int) -> Iterator[Encoded]:
            return iter(())

    with pytest.raises(ValueError, match="hold no image that can be read: shard"):
        epoch(build(stream(Empty(2, 8))))


@pytest.mark.parametrize(
    ("shards", "world", "readers"), [(1, 1, 1), (7, 1, 4), (16, 1, 16), (100, 1, 16), (100, 8, 8), (3, 4, 0)]
)
def test_readers_are_a_power_of_two_that_the_shards_fill(shards: int, world: int, readers: int) -> None:
    assert choose_readers(shards, world) == readers


@pytest.mark.parametrize(
    ("given", "world", "workers", "message"),
    [
        (None, 9, 0, "8 shards to train on are fewer than the 9 devices: use trainer.devices=8"),
        (
            6,
            2,
            0,
            "data.lanes=6 wants 12 shards for 2 devices, and there are 8 to train on: choose data.lanes=4 or less",
        ),
        (
            None,
            1,
            3,
            "data.num_workers=3 does not divide data.lanes=8, the shards that are read side by side: choose",
        ),
        (None, 1, 16, "choose data.num_workers=0 or 1 or 2 or 4 or 8"),
    ],
)
def test_what_cannot_be_shared_out_is_refused(given: int | None, world: int, workers: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stream(readers=given).readers_for(world, workers)


def test_shards_are_held_out_whole() -> None:
    assert shards_held_out(np.full(100, 100.0)) == 10
    assert shards_held_out(np.full(100, 1000.0)) == 2  # 2,000 images are enough
    assert shards_held_out(np.full(3, 10_000.0)) == 1


def test_a_stream_of_tars_is_opened_with_validation_of_its_own(tmp_path: Path) -> None:
    splits = open_splits(**options(write_shards(tmp_path, 10), images=80, lanes=9))
    assert (len(splits.train), len(splits.val), splits.test) == (72, 8, None)
    assert splits.train.classes == splits.val.classes == ()
    held = {number_of(splits.val.image(index)) for index in range(8)}
    assert held == set(range(72, 80))
    assert isinstance(splits.train, Stream)
    assert sorted(numbers(epoch(build(splits.train)))) == list(range(72))
    look = inspect_images(splits.train)
    assert (look.count, look.channels, look.short_side, look.stream_shards) == (72, 3, 16, 9)


def test_validation_from_other_shards(tmp_path: Path) -> None:
    val = write_shards(tmp_path, 2, split="val", start=100)
    splits = open_splits(**options(write_shards(tmp_path, 4), images=32, val_root=val))
    assert len(splits.train) == 32
    assert [number_of(splits.val.image(index)) for index in range(16)] == list(range(100, 116))


def test_a_manifest_says_what_there_is(tmp_path: Path) -> None:
    pattern = write_shards(tmp_path, 4)
    write_shards(tmp_path, 1, split="val", start=100)
    write_manifest(tmp_path, train=8, val=8)
    for root in (pattern, tmp_path):
        splits = open_splits(**options(root, stream=True))
        assert (len(splits.train), len(splits.val)) == (32, 8)
        assert number_of(splits.val.image(0)) == 100
        assert splits.statistics == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.2))


def test_without_a_manifest_the_number_of_images_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"nothing says how many images the 4 shards of .*: data\.images=N does, or a man"
    ):
        open_splits(**options(write_shards(tmp_path, 4)))
    with pytest.raises(
        ValueError, match=r"manifest\.json names no shards for train: give theirs, as in \"data\.root='"
    ):
        open_splits(**options(tmp_path, stream=True))
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(ValueError, match="is no manifest of mae data pack"):
        open_splits(**options(tmp_path, stream=True))


def test_one_shard_leaves_none_for_validation(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"is the only shard, so none can be held out for validation: give data\.val_root"
    ):
        open_splits(**options(write_shard(tmp_path / "train.tar", range(8)), stream=True, images=8))


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


def test_what_counts_as_an_image_in_a_shard(tmp_path: Path) -> None:
    path = tmp_path / "odd.tar"
    names = ["a.png", "a.json", "a.seg.png", "b/c.PNG", "b/.hidden.png", "d.rgb.png", "readme.txt"]
    with tarfile.open(path, "w") as tar:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = len(png(1))
            tar.addfile(entry, io.BytesIO(png(1)))
    found = [image.name for image in TarShards([str(path)]).read(0)]
    assert found == ["odd.tar/a.png", "odd.tar/b/c.PNG", "odd.tar/d.rgb.png"]


def test_a_shard_that_is_cut_off_gives_what_came_before(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "train.tar", range(8))
    data = path.read_bytes()
    whole = [image.data for image in TarShards([str(path)]).read(0)]
    # Within an image, between two members, within a header, and before the end mark.
    for at in (1100, 2048, 2048 + 100, 8 * 2048):
        path.write_bytes(data[:at])
        found: list[bytes] = []
        with pytest.raises(
            UnreadableImageError, match=r"train\.tar is damaged or cut off \(.*\): the rest of it is left out"
        ):
            for image in TarShards([str(path)]).read(0):
                found.append(image.data)
        assert found == whole[: len(found)]
        assert len(found) >= (at - 600) // 2048


def test_what_is_no_tar_is_named(tmp_path: Path) -> None:
    (tmp_path / "page.tar").write_text("<html>not found</html>" * 100)
    with pytest.raises(UnreadableImageError, match=r"page\.tar is damaged or cut off"):
        list(TarShards([str(tmp_path / "page.tar")]).read(0))


Serve = Callable[..., str]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Serve a folder over http; return its URL. The first ``failures`` requests of each path meet ``status``."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def start(failures: int = 0, status: int = 503, most: int | None = None) -> str:
        met: dict[str, int] = {}

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *args: Any) -> None:
                super().__init__(*args, directory=str(tmp_path))

            def do_GET(self) -> None:
                met[self.path] = met.get(self.path, 0) + 1
                if met[self.path] <= failures and "manifest" not in self.path:
                    if most is None:
                        self.send_error(status)
                        return
                    data = (tmp_path / self.path[1:]).read_bytes()  # the line breaks in the middle
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data[:most])
                    return
                super().do_GET()

            def log_message(self, *args: Any) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "WAITS", (0.0, 0.01))


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


def test_a_shard_that_goes_away_is_named_from_a_worker(tmp_path: Path) -> None:
    splits = open_splits(**options(write_shards(tmp_path, 5), images=40))
    assert isinstance(splits.train, Stream)
    (tmp_path / "train-002.tar").unlink()
    with pytest.raises(UnreachableError, match=r"train-002\.tar does not exist"):
        epoch(build(splits.train, num_workers=2))


BARE = ("callbacks.pictures=0", "callbacks.rank=false", "data.image_size=16", "batch_size=8", "epochs=1")


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
    assert prepared.setting.config["data"]["lanes"] == 4
    assert prepared.setting.config["data"]["num_workers"] in (1, 2, 4)
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


def test_a_stream_gives_no_image_by_its_number() -> None:
    with pytest.raises(ValueError, match="none can be opened by its number"):
        stream().open(0)
