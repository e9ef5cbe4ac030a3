"""The order of a stream, whatever reads it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from PIL import Image

from mae.data.reading.decode import UnreadableImageError
from mae.data.reading.transforms import EvalTransform
from mae.data.streaming.stream import Encoded, Shards, Stream
from mae.data.streaming.stream_order import ShardReader, StreamDataset, StreamSampler, shuffled
from tests.data.drawing import smooth
from tests.data.streaming.streamed import (
    Drawn,
    build,
    epoch,
    number_of,
    numbers,
    png,
    stream,
)


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
