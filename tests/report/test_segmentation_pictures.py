"""Pictures and tables of segmentations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mae.data.segmentation.masks import IGNORE
from mae.evaluation.segmentation_scores import measure_segmentation
from mae.report.pictures import GAP, MARGIN
from mae.report.segmentation_pictures import DIM, HARDEST, UNLABELLED, WRONG, iou_table, palette, save_segmentations

CELL = 112
NAMES = ("sky", "road", "tree")


def drawn(
    path: Path, truth: torch.Tensor, prediction: torch.Tensor, names: tuple[str, ...] = NAMES, channels: int = 3
) -> Image.Image:
    images = torch.linspace(0.2, 0.8, len(truth)).view(-1, 1, 1, 1).expand(-1, channels, *truth.shape[1:])
    save_segmentations(images, truth, prediction, names, path / "new" / "s.png")
    with Image.open(path / "new" / "s.png") as image:
        return image.convert("RGB")


def pixel(image: Image.Image, row: int, column: int, x: int = CELL // 2) -> tuple[int, ...]:
    """Return a colour within a cell, of 112 pixels."""
    return image.getpixel((MARGIN + GAP + column * (CELL + GAP) + x, GAP + row * (CELL + GAP) + CELL // 2))


def below(image: Image.Image) -> set[tuple[int, ...]]:
    """Return the colours of the legend."""
    part = image.crop((0, GAP + 4 * (CELL + GAP), *image.size))
    return {tuple(colour) for colour in np.asarray(part).reshape(-1, 3).tolist()}


@pytest.mark.parametrize("channels", [1, 5])
def test_rows_show_image_truth_prediction_and_difference(tmp_path: Path, channels: int) -> None:
    # A column that is right, one that is wrong, and one whose left half has no label.
    truth = torch.tensor([0, 1, 2]).view(3, 1, 1).repeat(1, 16, 16).to(torch.uint8)
    truth[2, :, :8] = IGNORE
    prediction = torch.tensor([0, 2, 2]).view(3, 1, 1).repeat(1, 16, 16)
    image, colours = drawn(tmp_path, truth, prediction, channels=channels), palette(3)
    assert [pixel(image, 0, column) for column in range(3)] == [(51,) * 3, (128,) * 3, (204,) * 3]
    assert [pixel(image, 1, column, 100) for column in range(3)] == list(colours)
    assert [pixel(image, 2, column, 100) for column in range(3)] == [colours[0], colours[2], colours[2]]
    right, wrong, unknown = (pixel(image, 3, column, 10) for column in range(3))
    assert len(set(right)) == 1, "grey where prediction and truth agree"
    assert wrong == WRONG
    assert unknown == pixel(image, 1, 2, 10) == UNLABELLED
    assert pixel(image, 2, 2, 10) == pytest.approx([DIM * value for value in colours[2]], abs=1)


def test_the_legend_names_what_occurs(tmp_path: Path) -> None:
    truth = torch.tensor([[0, 1], [0, 0]]).repeat_interleave(8, 0).repeat_interleave(8, 1)[None]
    colours = palette(3)
    shown = below(drawn(tmp_path, truth, truth))
    assert {colours[0], colours[1], WRONG} <= shown
    assert colours[2] not in shown
    assert UNLABELLED not in shown
    assert colours[2] in below(drawn(tmp_path, truth, truth * 2)), "what is predicted occurs"
    assert UNLABELLED in below(drawn(tmp_path, truth * IGNORE, truth))


def test_a_long_legend_takes_lines_and_a_long_name_makes_room(tmp_path: Path) -> None:
    truth = torch.arange(36).view(1, 6, 6).repeat(3, 1, 1)
    few = drawn(tmp_path, truth % 3, truth % 3)
    many = drawn(tmp_path, truth, truth, tuple(f"class number {label}" for label in range(40)))
    assert many.width == few.width
    assert many.height > few.height
    assert set(palette(40)[:36]) <= below(many)
    assert drawn(tmp_path, truth % 2, truth % 2, ("a", "b" * 60)).width > few.width


def test_text_grows_with_pictures_that_a_page_makes_smaller(tmp_path: Path) -> None:
    truth = torch.zeros(8, 224, 224, dtype=torch.uint8)
    wide = drawn(tmp_path, truth, truth)
    assert wide.width == 2 * MARGIN + GAP + 8 * (224 + GAP)


def test_the_same_picture_is_the_same_bytes(tmp_path: Path) -> None:
    truth = torch.arange(3).repeat(1, 12, 4)
    written = []
    for _ in range(2):
        drawn(tmp_path, truth, truth.flip(2))
        written.append((tmp_path / "new" / "s.png").read_bytes())
    assert written[0] == written[1]


def test_colours_are_distinct_and_keep_their_class() -> None:
    colours = np.array(palette(255), dtype=float)
    apart = np.abs(colours[:, None] - colours).sum(-1) + 1000 * np.eye(255)
    assert apart.min() >= 34
    assert apart[:20, :20].min() > 80
    assert colours.sum(axis=1).min() > 100, "black stands for no label"
    assert palette(11) == palette(255)[:11]


# Linear RGB as eyes see it that lack one kind of cones (Viénot, Brettel and Mollon 1999), red or green.
BLIND = {
    "red": [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
    "green": [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
}


@pytest.mark.parametrize("cones", BLIND)
def test_the_first_colours_differ_for_colour_blind_eyes(cones: str) -> None:
    linear = (np.array(palette(20)) / 255) ** 2.2
    seen = np.clip(linear @ np.array(BLIND[cones]).T, 0, 1) ** (1 / 2.2) * 255
    apart = np.linalg.norm(seen[:, None] - seen, axis=-1) + 1000 * np.eye(20)
    assert apart.min() > 25


def test_a_table_begins_with_the_hardest_class() -> None:
    scores = measure_segmentation(torch.tensor([[90, 0, 0], [5, 5, 0], [0, 0, 0]]))
    table = iou_table(scores, NAMES)
    assert [row.cells for row in table.rows] == [("road", "50.0%", "10.00%"), ("sky", "94.7%", "90.00%")]
    assert table.title == "IoU by class"


def test_a_table_of_many_classes_is_cut() -> None:
    table = iou_table(measure_segmentation(torch.eye(30, dtype=torch.int64)), tuple(map(str, range(30))))
    assert len(table.rows) == HARDEST
    assert table.title == "The 20 hardest classes"
