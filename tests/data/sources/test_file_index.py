"""The list of a folder's images: its memory, and the files that keep it."""

from __future__ import annotations

import pickle
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing  # noqa: F401 - teaches the pickler of worker processes to share tensors  # noqa: F401 - teaches the pickler of worker processes to share tensors

from mae.data.sources.file_index import FileNames, Index, Scan, scan, walk
from mae.data.sources.files import FileSource
from tests.data.drawing import write_folder, write_image


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


def test_an_index_is_a_file_of_numbers_alone(tmp_path: Path) -> None:
    found = scan(write_folder(tmp_path / "data", 2))
    found.save(tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz", allow_pickle=False) as stored:
        assert all(stored[name].dtype != object for name in stored)
    assert pickle.dumps(list(Scan.load(tmp_path / "x.npz").names)) == pickle.dumps(list(found.names))


def test_images_are_found_at_any_depth_in_sorted_order(tmp_path: Path) -> None:
    names = ["b.png", "a/z.png", "a/deep/er/x.png", "c/1.png"]
    for name in names:
        write_image(tmp_path / name)
    assert list(scan(tmp_path).names) == sorted(names)


def test_suffixes_count_in_any_case_and_other_files_do_not(tmp_path: Path) -> None:
    for name in ("a.JPG", "b.Jpeg", "c.pNg", "d.TIF"):
        write_image(tmp_path / name)
    for name in ("notes.txt", "jpg", "e.png.bak", "f.npy"):
        (tmp_path / name).write_bytes(b"no image")
    assert list(scan(tmp_path).names) == ["a.JPG", "b.Jpeg", "c.pNg", "d.TIF"]


def test_names_that_start_with_a_dot_are_passed_over(tmp_path: Path) -> None:
    # Thumbnails of file managers and macOS' resource forks (._x.jpg) are no images of the data set.
    write_image(tmp_path / "kept.png")
    write_image(tmp_path / ".hidden.png")
    write_image(tmp_path / ".thumbnails" / "t.png")
    (tmp_path / "._kept.png").write_bytes(b"resource fork")
    assert list(scan(tmp_path).names) == ["kept.png"]


def test_a_link_to_a_folder_above_does_not_repeat_images(tmp_path: Path) -> None:
    write_image(tmp_path / "a" / "one.png")
    (tmp_path / "a" / "back").symlink_to(tmp_path)
    assert list(scan(tmp_path).names) == ["a/one.png"]


def test_linked_files_and_folders_are_followed_and_dead_links_passed_over(tmp_path: Path) -> None:
    elsewhere = write_folder(tmp_path / "elsewhere", 2)
    root = tmp_path / "root"
    root.mkdir()
    (root / "linked").symlink_to(elsewhere)
    (root / "file.png").symlink_to(elsewhere / "image_000.png")
    (root / "dead.png").symlink_to(tmp_path / "nowhere.png")
    assert list(scan(root).names) == ["file.png", "linked/image_000.png", "linked/image_001.png"]


def test_an_empty_folder_and_one_without_images_say_what_they_hold(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no image: it is empty"):
        scan(tmp_path)
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "b.txt").write_text("x")
    (tmp_path / "README").write_text("x")
    with pytest.raises(ValueError, match=r"holds no image: only 2 \.txt, 1 no suffix.*\.png"):
        scan(tmp_path)
