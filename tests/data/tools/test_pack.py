"""Any data to tar shards."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mae.data.source import Source
from mae.data.sources.bundled import TensorSource, digits
from mae.data.sources.files import folder, image_folder
from mae.data.tools.pack import PackOptions, pack
from mae.data.tools.packing_log import PackingLog
from tests.data.drawing import write_folder, write_image
from tests.data.mixed_sizes import as_training_measures, write_large_and_small
from tests.data.tarring import files_below, open_shards, pack_folder, write_classes


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_classes(tmp_path / "images")


@pytest.mark.parametrize("workers", [0, 2])
def test_bytes_labels_classes_and_splits_are_kept(tmp_path: Path, workers: int) -> None:
    root = write_classes(tmp_path / "images", 4, ("train", "val", "test"))
    pack_folder(root, tmp_path / "packed", workers, shard_images=3)
    before, after = image_folder(str(root)).own, open_shards(tmp_path / "packed").own
    assert list(before) == list(after) == ["train", "val", "test"]
    for name, source in before.items():
        packed = after[name]
        assert source.classes == packed.classes == ("ant", "bee")
        assert source.labels is not None
        assert packed.labels is not None
        assert source.labels.tolist() == packed.labels.tolist()
        assert [picture.open(i).data for picture in (source, packed) for i in range(8)] == [  # type: ignore[attr-defined]
            Path(source.name(i)).read_bytes() for _ in range(2) for i in range(8)
        ]


def test_what_was_held_out_is_packed_as_training_and_held_out_again(images: Path, tmp_path: Path) -> None:
    pack_folder(images, tmp_path / "packed", shard_images=5)
    before, after = image_folder(str(images)), open_shards(tmp_path / "packed")
    assert sorted(path.name for path in (tmp_path / "packed").glob("*.tar")) == [
        f"train-00000{number}.tar" for number in range(3)
    ]
    for one, other in ((before.train, after.train), (before.val, after.val)):
        assert len(one) == len(other)
        assert all(torch.equal(one.image(i), other.image(i)) for i in range(len(one)))


def test_webdataset_reads_the_shards(images: Path, tmp_path: Path) -> None:
    wds = pytest.importorskip("webdataset")
    pack_folder(images, tmp_path / "packed", shard_images=7)
    ours = open_shards(tmp_path / "packed").own["train"]
    urls = [str(path) for path in sorted((tmp_path / "packed").glob("*.tar"))]
    theirs = list(wds.WebDataset(urls, shardshuffle=False).decode("rgb8").to_tuple("png;jpg", "cls"))
    assert len(theirs) == len(ours) == 12
    assert ours.labels is not None
    assert [label for _, label in theirs] == ours.labels.tolist()
    first = ours.image(0)
    assert np.abs(theirs[0][0].astype(int).transpose(2, 0, 1) - first.expand(3, -1, -1).numpy()).max() <= 1


def test_the_bytes_depend_on_neither_the_workers_nor_the_time(images: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    pack_folder(images, first, 0, short_side=20, shard_images=5)
    pack_folder(images, second, 2, short_side=20, shard_images=5)
    assert files_below(first) == files_below(second)


@pytest.mark.parametrize("stop", [3, 4, 5, 8, 11])
def test_a_packing_that_is_stopped_goes_on_to_the_same_bytes(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    (images / "train" / "ant" / "010.jpg").write_bytes(b"damaged")
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    pack_folder(images, whole, shard_images=3, short_side=20)
    read, done = Path.read_bytes, 0

    def fails(path: Path) -> bytes:
        nonlocal done
        done += path.suffix in (".png", ".jpg")
        if done > stop:
            raise KeyboardInterrupt
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fails)
        with pytest.raises(KeyboardInterrupt):
            pack_folder(images, stopped, shard_images=3, short_side=20)
    assert not (stopped / "manifest.json").exists()
    finished = len(list(stopped.glob("*.tar")))
    assert finished == (stop - (stop > 5) - 1) // 3  # the sixth is the damaged one
    with (stopped / ".progress.jsonl").open("a") as file:
        file.write('{"split": "tra')  # what a kill may leave
    pack_folder(images, stopped, shard_images=3, short_side=20)
    assert files_below(stopped) == files_below(whole)
    assert "010.jpg cannot be read" in (whole / "unreadable.txt").read_text()


def begin(images: Path, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a packing after its first shard."""

    def fails(self: PackingLog, finished: object) -> None:
        add(self, finished)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    add = PackingLog.add
    with monkeypatch.context() as patch:
        patch.setattr(PackingLog, "add", fails)
        with pytest.raises(KeyboardInterrupt):
            pack_folder(images, into, shard_images=3)


def test_a_packing_goes_on_with_the_same_options_and_images_alone(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    into = tmp_path / "packed"
    begin(images, into, monkeypatch)
    with pytest.raises(ValueError, match=r"begun with other options: shard_images was 3 and is 4; repeat its command"):
        pack_folder(images, into, shard_images=4)
    with pytest.raises(ValueError, match=r"begun with other source: root was .*images and is .*copy"):
        pack_folder(shutil.copytree(images, tmp_path / "copy"), into, shard_images=3)
    write_image(images / "train" / "ant" / "more.png")
    with pytest.raises(ValueError, match=r"begun with other images: train was 12 .* and is 13 "):
        pack_folder(images, into, shard_images=3)
    (images / "train" / "ant" / "more.png").unlink()
    shard = into / "train-000000.tar"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"train-000000\.tar has .*, so the packing cannot go on: delete"):
        pack_folder(images, into, shard_images=3)


def test_a_folder_that_holds_something_is_left_alone(images: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "text.txt").write_text("three years of work")
    with pytest.raises(ValueError, match="thesis is not empty: choose a new folder"):
        pack_folder(images, tmp_path / "thesis")
    with pytest.raises(ValueError, match=r"text\.txt is a file: give a folder"):
        pack_folder(images, tmp_path / "thesis" / "text.txt")
    pack_folder(images, tmp_path / "packed")
    with pytest.raises(ValueError, match="packed is packed already: choose another folder"):
        pack_folder(images, tmp_path / "packed")
    assert files_below(tmp_path / "thesis") == {"text.txt": b"three years of work"}


def test_options_that_leave_nothing_are_refused() -> None:
    for options, message in (
        ({"short_side": 0}, "leaves no pixel"),
        ({"quality": 101}, "1 to 100"),
        ({"shard_images": 0}, "1 or"),
    ):
        with pytest.raises(ValueError, match=message):
            PackOptions(**options)


def test_images_none_of_which_can_be_read_are_no_data(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"none of the 3 images of train can be read: .*0\.png cannot be read"):
        pack(folder(str(tmp_path)).own, tmp_path / "packed", PackOptions(), {})


def test_shards_end_before_they_grow_too_large(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [len(Path(name).read_bytes()) for name in map(str, sorted(images.rglob("*.*")))]
    monkeypatch.setattr("mae.data.tools.pack.SHARD_BYTES", 2 * max(sizes))
    manifest = pack_folder(images, tmp_path / "packed")
    shards = manifest.splits["train"].shards
    assert len(shards) > 2
    assert sum(shard.images for shard in shards) == 12
    for path in (tmp_path / "packed").glob("*.tar"):
        assert sum(len(data) for data in _pictures(path)) <= 2 * max(sizes)


def _pictures(path: Path) -> list[bytes]:
    import tarfile

    with tarfile.open(path) as tar:
        return [tar.extractfile(entry).read() for entry in tar if not entry.name.endswith(".cls")]  # type: ignore[union-attr]


def sources() -> dict[str, Source]:
    floats = torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return {"digits": digits().own["test"], "floats": TensorSource(floats, None, ())}


@pytest.mark.parametrize("name", ["digits", "floats"])
def test_data_in_memory_come_back_as_they_were(tmp_path: Path, name: str) -> None:
    source = sources()[name]
    manifest = pack({"train": source}, tmp_path / "packed", PackOptions(), {"source": name})
    packed = open_shards(tmp_path / "packed").own["train"]
    assert packed.classes == source.classes
    assert all(torch.equal(source.image(i), packed.image(i)) for i in range(len(source)))
    assert manifest.splits["train"].channels == source.image(0).shape[0]


def test_statistics_are_those_of_numpy_over_all_that_was_packed(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "images", 9)
    (root / "damaged.png").write_bytes(b"damaged")
    write_image(root / "grey.png", grey=True)
    manifest = pack(folder(str(root)).own, tmp_path / "packed", PackOptions(), {})
    pixels = [
        np.asarray(Image.open(path).convert("RGB")) for path in sorted(root.glob("*.png")) if path.stem != "damaged"
    ]
    flat = np.concatenate([image.reshape(-1, 3) for image in pixels]) / 255
    train = manifest.splits["train"]
    assert (train.images, train.channels) == (10, 3)
    assert train.mean == pytest.approx(flat.mean(0), rel=1e-5)
    assert train.std == pytest.approx(flat.std(0), rel=1e-5)
    assert open_shards(tmp_path / "packed").statistics == (train.mean, train.std)


def test_statistics_weight_images_as_training_does(tmp_path: Path) -> None:
    root = write_large_and_small(tmp_path / "images")
    splits = folder(str(root))
    manifest = pack(splits.own, tmp_path / "packed", PackOptions(), {})
    mean, std = as_training_measures(splits)
    assert manifest.statistics is not None
    assert manifest.statistics[0] == pytest.approx(mean, abs=0.01)
    assert manifest.statistics[1] == pytest.approx(std, abs=0.01)


def test_a_packing_that_weighted_pixels_does_not_go_on(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(images, tmp_path / "packed", monkeypatch)
    log = tmp_path / "packed" / ".progress.jsonl"
    task, shard = log.read_text().splitlines()
    log.write_text(f"{task}\n{json.dumps({**json.loads(shard), 'count': 1200})}\n")
    with pytest.raises(ValueError, match="an earlier version began, in whose statistics large images count more"):
        pack_folder(images, tmp_path / "packed", shard_images=3)


def test_the_manifest_says_what_was_packed(images: Path, tmp_path: Path) -> None:
    pack_folder(images, tmp_path / "packed", shard_images=5, short_side=20)
    content = json.loads((tmp_path / "packed" / "manifest.json").read_text())
    assert content["format"] == 1
    assert content["source"] == {"source": "image_folder", "root": str(images)}
    assert content["options"] == {"short_side": 20, "quality": 92, "shard_images": 5}
    train = content["splits"]["train"]
    assert [shard["images"] for shard in train["shards"]] == [5, 5, 2]
    for shard in train["shards"]:
        assert (tmp_path / "packed" / shard["name"]).stat().st_size == shard["bytes"]
    assert (train["images"], train["classes"], train["short_side"]) == (12, ["ant", "bee"], 20)
