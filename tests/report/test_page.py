"""Pages that need nothing beside them."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mae.report.curves import curve_svg, run_curves
from mae.report.page import Picture, tiles, write_page
from mae.report.pictures import GAP, MARGIN, save_reconstructions
from mae.report.tables import Row, Table

NASTY = """<script>alert("x")</script> & 'it' <b>"""


class Outline(HTMLParser):
    """Collects tags with their attributes, and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def outline(page: str) -> Outline:
    parsed = Outline()
    parsed.feed(page)
    return parsed


def assert_self_contained(page: str) -> None:
    """Fail on anything that a browser would fetch; namespaces in an SVG are names, not links."""
    for tag, attributes in outline(page).tags:
        assert tag not in ("script", "iframe", "object", "embed"), tag
        for key, value in attributes.items():
            if key in ("src", "href", "srcset", "poster", "action", "xlink:href"):
                assert value is not None
                assert value.startswith(("data:", "#")), f"{tag} {key}={value[:60]}"
    assert not re.search(r"url\(\s*['\"]?(?!#|data:)|@import", page)


def page(tmp_path: Path, **changes: Any) -> str:
    picture = tmp_path / "p.png"
    Image.new("RGB", (4, 4), "red").save(picture)
    content: dict[str, Any] = {
        "title": "A title",
        "lead": "A lead",
        "verdicts": ["It worked."],
        "tiles": [("loss", "0.5")],
        "pictures": [Picture.read(picture, "A caption")],
        "curves": [
            ("Loss", curve_svg({"training": [(0, 1.0), (5, 0.5)], "validation": [(5, 0.6)]}, "loss", levels={"a": 0.7}))
        ],
        "choices": [("data.image_size=16", "images of 8 px")],
        "tables": [
            Table("Results", ("", "accuracy"), [Row(("ours", "90%"), ours=True), Row(("theirs", "80%"))], "A note")
        ],
        "command": "python train_pretrain.py",
        "config": "seed: 0",
        "environment": "{}",
    }
    return write_page(tmp_path / "report.html", **{**content, **changes}).read_text()


def test_a_page_fetches_nothing(tmp_path: Path) -> None:
    assert_self_contained(page(tmp_path))


def test_the_check_sees_what_a_browser_would_fetch() -> None:
    for bad in (
        '<img src="p.png">',
        '<link href="https://x/a.css">',
        "<script>1</script>",
        "<style>a{b:url(x.png)}</style>",
    ):
        with pytest.raises(AssertionError):
            assert_self_contained(bad)


def test_text_is_escaped(tmp_path: Path) -> None:
    picture = tmp_path / "p.png"
    Image.new("RGB", (4, 4)).save(picture)
    text = page(
        tmp_path,
        verdicts=[NASTY],
        tiles=[(NASTY, NASTY)],
        choices=[(NASTY, NASTY)],
        pictures=[Picture.read(picture, NASTY)],
        curves=[(NASTY, "<svg></svg>")],
        tables=[Table(NASTY, (NASTY,), [Row((NASTY,))], NASTY)],
        **dict.fromkeys(("lead", "command", "config", "environment"), NASTY),
        title="<script> & 'it'",  # twice, in the head too
    )
    assert "<script>" not in text
    assert outline(text).text.count(NASTY) == 15
    assert outline(text).text.count("<script> & 'it'") == 2


def test_pictures_are_inside_and_whole(tmp_path: Path) -> None:
    sources = [attributes["src"] for tag, attributes in outline(page(tmp_path)).tags if tag == "img"]
    assert len(sources) == 1
    with Image.open(io.BytesIO(base64.b64decode(sources[0].partition(",")[2]))) as image:
        assert image.getpixel((0, 0)) == (255, 0, 0)


def test_sections_without_content_are_left_out(tmp_path: Path) -> None:
    bare = write_page(tmp_path / "bare.html", title="T", lead="", command="c", config="", environment="").read_text()
    full = page(tmp_path)
    for heading in ("Reconstructions", "Curves", "Chosen for these images"):
        assert heading not in bare
        assert heading in full


def test_no_half_page_is_left(tmp_path: Path) -> None:
    page(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "p.png"}


def test_curves_are_the_same_bytes_each_time_and_name_their_lines() -> None:
    drawn = [curve_svg({"training": [(0, 1.0), (9, 0.5)]}, "loss", levels={"random weights": 0.3}) for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert drawn[0].startswith("<svg")
    for words in ("training", "random weights", "loss", "step"):
        assert words in drawn[0]


def test_a_label_with_markup_is_escaped_in_a_curve() -> None:
    assert "<script>" not in curve_svg({"<script>": [(0, 1.0), (1, 2.0)], "b": [(0, 1.0)]}, "loss")


def test_a_run_without_metrics_has_no_curves(tmp_path: Path) -> None:
    assert run_curves(tmp_path, {}) == []


def test_curves_are_drawn_of_what_was_measured(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,epoch,train_loss,val_loss,knn_top1\n0,0,1.0,,\n9,0,0.5,0.6,0.7\n")
    titles = [title for title, _ in run_curves(tmp_path, {"knn_top1_random": 0.2})]
    assert titles == ["Loss", "Accuracy on frozen features"]


def test_tiles_show_what_there_is_in_readable_numbers() -> None:
    shown = dict(tiles({"val_loss": 0.12345, "knn_top1": 0.987, "images_seen": 1234567, "unknown": 3}))
    assert shown == {"validation loss": "0.123", "kNN accuracy, frozen": "98.7%", "images seen": "1,234,567"}


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_reconstructions_are_tiled_in_rows_and_columns(tmp_path: Path, channels: int) -> None:
    levels = torch.linspace(0, 1, 8).view(4, 2)
    rows = [levels[r].view(2, 1, 1, 1).expand(2, channels, 16, 16) for r in range(4)]
    path = save_reconstructions(rows, tmp_path / "new" / "r.png")
    with Image.open(path) as image:
        for r in range(4):
            for c in range(2):
                x, y = MARGIN + GAP + c * (112 + GAP) + 56, GAP + r * (112 + GAP) + 56
                assert image.getpixel((x, y)) == (round(float(levels[r, c]) * 255),) * 3


def test_pixels_of_small_images_stay_square_and_sharp(tmp_path: Path) -> None:
    board = (torch.arange(8).view(8, 1) + torch.arange(8)).remainder(2).float().view(1, 1, 8, 8)
    with Image.open(save_reconstructions([board] * 4, tmp_path / "r.png")) as image:
        cell = image.crop((MARGIN + GAP, GAP, MARGIN + GAP + 112, GAP + 112)).convert("L")
    assert set(cell.tobytes()) == {0, 255}
    assert cell.getpixel((13, 0)) == 0
    assert cell.getpixel((14, 0)) == 255
