"""What is seen of the images before anything is chosen."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mae.data.inspection import inspect_images
from mae.data.reading.decode import Picture, TensorPicture
from mae.data.source import Source
from mae.data.sources.bundled import digits
from mae.data.sources.file_index import scan
from mae.data.sources.files import FileSource
from tests.data.drawing import write_folder, write_image


def source(root: Path) -> FileSource:
    return FileSource(root, scan(root).names)


def test_sizes_and_colour_are_those_of_the_files(tmp_path: Path) -> None:
    for number, (height, width) in enumerate([(10, 30), (20, 12), (50, 40)]):
        write_image(tmp_path / f"{number}.png", height, width, grey=True)
    look = inspect_images(source(tmp_path))
    assert (look.count, look.channels, look.short_side, look.smallest, look.largest) == (3, 1, 12, 10, 50)
    assert not look.in_memory


def test_one_image_in_colour_makes_the_data_coloured(tmp_path: Path) -> None:
    write_folder(tmp_path, 5, grey=True)
    write_image(tmp_path / "colour.png")
    assert inspect_images(source(tmp_path)).channels == 3


def test_some_unreadable_files_are_passed_over_and_all_of_them_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"garbage")
    with pytest.raises(ValueError, match=r"none of the images looked at can be read: .*a\.jpg"):
        inspect_images(source(tmp_path))
    write_image(tmp_path / "b.png", 10, 30)
    assert inspect_images(source(tmp_path)).short_side == 10


def test_a_look_reads_few_of_many() -> None:
    class Counting(Source):
        sizes = images = 0

        def __len__(self) -> int:
            return 1_000_000

        def size(self, index: int) -> tuple[int, int]:
            self.sizes += 1
            return 10, 20

        def open(self, index: int) -> Picture:
            self.images += 1
            return TensorPicture(torch.zeros(3, 10, 20))

        def name(self, index: int) -> str:
            return f"image {index}"

    counting = Counting()
    inspect_images(counting)
    # A look at a million files on a network disk may take seconds, not hours.
    assert counting.sizes <= 256
    assert counting.images <= 16


def test_images_in_memory_are_told_from_files() -> None:
    look = inspect_images(digits().train)
    assert look.in_memory
    assert look.short_side == 8
