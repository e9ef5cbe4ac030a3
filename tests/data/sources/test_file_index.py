"""The list of a folder's images: its memory, and the files that keep it."""

from __future__ import annotations

import pickle
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
import torch.multiprocessing  # noqa: F401 - teaches the pickler of worker processes to share tensors

from mae.data.source import Subset
from mae.data.sources.file_index import FileNames, Index, Scan, scan, walk
from mae.data.sources.files import FileSource, folder
from tests.data.drawing import write_folder, write_image
from tests.runs import job


def names_of(root: Path) -> list[str]:
    return list(scan(root).names)


@pytest.mark.parametrize("names", [[], ["a"], ["a", "", "bc"], ["naïve 画像.png", "x" * 300, "\udcff.png"]])
def test_names_come_back_as_they_were(names: list[str]) -> None:
    kept = FileNames.of(iter(names))
    assert len(kept) == len(names)
    assert list(kept) == names
    assert [kept[i] for i in range(len(kept))] == names
    with pytest.raises(IndexError):
        kept[len(names)]


def test_many_names_are_a_few_objects_and_little_to_hand_to_a_worker() -> None:
    kept = FileNames.of(f"photos/{number:09}.jpg" for number in range(200_000))
    assert kept[199_999] == "photos/000199999.jpg"
    assert kept.text.numel() == 200_000 * len("photos/000000000.jpg")
    # A worker that is not forked is sent handles of shared memory, not 6 MB.
    assert len(ForkingPickler.dumps(FileSource(Path(), kept))) < 10_000


def test_files_come_in_the_order_of_their_sorted_paths(tmp_path: Path) -> None:
    names = ["a.b/1.png", "a/z.png", "a/b/1.png", "a.png", "a0.png", "a/b.png", "A/1.png", "ä/1.png"]
    for name in names:
        write_image(tmp_path / name, 2, 2)
    assert list(walk(tmp_path)) == sorted(names)


def test_an_index_is_used_until_a_folder_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, shared = write_folder(tmp_path / "data" / "a", 3).parent, str(tmp_path / "shared")
    first = Index(shared)
    assert len(first.find(root)) == 3
    first.keep()

    scans: list[Path] = []

    def counted(root: Path) -> Scan:
        scans.append(root)
        return scan(root)

    monkeypatch.setattr("mae.data.sources.file_index.scan", counted)
    assert list(Index(shared).find(root)) == names_of(root)
    assert not scans
    write_image(root / "a" / "more.png")
    assert len(Index(shared).find(root)) == 4
    assert len(scans) == 1


def test_a_folder_that_went_away_is_scanned_again(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data" / "a", 2).parent
    write_image(root / "b" / "x.png")
    index = Index(str(tmp_path / "shared"))
    index.find(root)
    index.keep()
    (root / "b" / "x.png").unlink()
    (root / "b").rmdir()
    assert len(Index(str(tmp_path / "shared")).find(root)) == 2


def test_a_file_that_is_no_index_is_named(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", 2)
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "images.npz").write_bytes(b"no index")
    with pytest.raises(ValueError, match=r"images\.npz is not the index of a folder .*: delete it"):
        Index(str(tmp_path / "shared")).find(root)


@pytest.mark.slow
def test_a_resumed_run_sees_the_list_that_it_began_with(tmp_path: Path) -> None:
    root, run = write_folder(tmp_path / "data", 40), tmp_path / "run"
    bare = ("callbacks.rank=false", "callbacks.pictures=0")
    overrides = ("data=folder", f"data.root={root}", "batch_size=8", "data.num_workers=0", *bare)
    job("pretrain", run, *overrides).run()
    write_image(root / "aaa new.png")
    (root / "image_007.png").unlink()
    resumed = job("pretrain", run, *overrides, "resume=true")
    source = resumed.data.splits.train
    assert isinstance(source, Subset)
    assert isinstance(source.source, FileSource)
    assert list(source.source.names) == [f"image_{number:03}.png" for number in range(40)]


def test_nothing_is_written_before_the_run_begins(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", 40)
    job("pretrain", tmp_path / "run", "data=folder", f"data.root={root}", f"data.index={tmp_path / 'shared'}")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_list_names_files_relative_to_itself_or_absolute(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", 6)
    listed = [f"data/image_{number:03}.png" for number in range(3)] + [str(root / f"image_{n:03}.png") for n in (3, 4)]
    (tmp_path / "list.txt").write_text("\n".join(listed) + "\n\n")
    whole = folder(str(tmp_path / "list.txt")).whole
    assert whole is not None
    assert len(whole) == 5
    assert [Path(whole.name(i)).name for i in range(5)] == [f"image_{number:03}.png" for number in range(5)]
    assert all(whole.size(i) == (20, 20) for i in range(5))


@pytest.mark.parametrize(
    ("content", "message"), [("", "lists no image"), ("gone.png\n", "begins with 'gone.png', and there is no file")]
)
def test_a_list_of_nothing_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "list.txt").write_text(content)
    with pytest.raises(ValueError, match=message):
        folder(str(tmp_path / "list.txt"))


def test_a_pattern_finds_what_the_shell_would(tmp_path: Path) -> None:
    for name in ("a/left/1.png", "b/left/2.png", "b/right/3.png", "b/left/deep/4.png"):
        write_image(tmp_path / name)
    (tmp_path / "a" / "left" / "notes.txt").write_text("x")
    whole = folder(str(tmp_path / "*" / "left" / "*")).whole
    assert whole is not None
    assert [Path(whole.name(i)).name for i in range(len(whole))] == ["1.png", "2.png"]
    deep = folder(str(tmp_path / "b" / "**" / "*.png")).whole
    assert deep is not None
    assert len(deep) == 3
    with pytest.raises(ValueError, match=r"\*\.jpg matches no image"):
        folder(str(tmp_path / "*.jpg"))


@pytest.mark.parametrize("kind", ["folder", "pattern", "list"])
def test_a_resumed_run_sees_the_images_that_it_began_with(tmp_path: Path, kind: str) -> None:
    root, run = write_folder(tmp_path / "data", 5), tmp_path / "run"
    (tmp_path / "list.txt").write_text("".join(f"data/image_{number:03}.png\n" for number in range(5)))
    given = {"folder": str(root), "pattern": str(root / "*.png"), "list": str(tmp_path / "list.txt")}[kind]
    first = folder(given, run_dir=run)
    assert first.keep is not None
    first.keep()
    write_image(root / "more.png")
    (tmp_path / "list.txt").write_text("data/more.png\n")
    again = folder(given, run_dir=run).whole
    assert again is not None
    assert [Path(again.name(i)).name for i in range(len(again))] == [f"image_{number:03}.png" for number in range(5)]


def test_an_index_that_cannot_be_written_does_not_end_the_run(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", 5)
    (tmp_path / "file").write_text("in the way")
    index = Index(str(tmp_path / "file"))
    index.find(root)
    with pytest.warns(UserWarning, match=r"data\.index=.* cannot be written"):
        index.keep()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off"])
def test_an_index_that_is_cut_off_is_named(tmp_path: Path, content: bytes) -> None:
    root = write_folder(tmp_path / "data", 2)
    (tmp_path / "images.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"images\.npz is not the index"):
        Index(str(tmp_path)).find(root)


def test_an_image_is_no_list(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"one\.png is an image: give the folder that holds it"):
        folder(str(write_image(tmp_path / "one.png")))


def test_a_folder_whose_name_looks_like_a_pattern_is_a_folder(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "photos [2024]", 4)
    assert folder(str(root)).whole is not None


def test_an_index_is_a_file_of_numbers_alone(tmp_path: Path) -> None:
    found = scan(write_folder(tmp_path / "data", 2))
    found.save(tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz", allow_pickle=False) as stored:
        assert all(stored[name].dtype != object for name in stored)
    assert pickle.dumps(list(Scan.load(tmp_path / "x.npz").names)) == pickle.dumps(list(found.names))
