"""Pictures of reconstructions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

LABELS = ("original", "masked", "reconstruction", "pasted")
Colour = tuple[int, int, int]

GAP = 6
MARGIN = 108
PAGE = 1000  # pixels that a page shows side by side: what is wider is shown smaller, so its text is drawn larger
INK = (70, 70, 70)
CHIP = 20  # a colour of the legend, with the space behind it
CELL = 112  # small images are enlarged to about this, by whole factors, so that their pixels stay square


def save_reconstructions(rows: Sequence[Tensor], path: Path, labels: Sequence[str] = LABELS) -> Path:
    """Write rows of images (B, C, H, W) in [0, 1] as one labelled PNG, a column an image.

    Where C is neither 1 nor 3, the first three channels are shown: whoever wants others, or pixels of another range, makes
    false colours of them before, see ``mae.data.statistics.false_colours``.

    Returns:
        The path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    tiled(rows, labels).save(path, optimize=True)
    return path


def tiled(rows: Sequence[Tensor], labels: Sequence[str], legend: Sequence[tuple[str, Colour]] = ()) -> Image.Image:
    """Return rows of images (B, C, H, W) in [0, 1], each with its label, a column an image, and names of colours below."""
    height, width = rows[0].shape[-2:]
    factor = max(1, round(CELL / max(height, width)))
    cell_h, cell_w = height * factor, width * factor
    columns = rows[0].shape[0]
    zoom = max(1, round(columns * cell_w / PAGE))
    left = zoom * MARGIN + GAP
    font = ImageFont.load_default(size=14 * zoom)
    widths = [zoom * CHIP + int(font.getlength(name)) + GAP for name, _ in legend]
    wide = left + max(columns * (cell_w + GAP), *widths, 0)
    places, below = _flow(widths, wide - left, zoom)
    high = len(rows) * (cell_h + GAP) + GAP
    canvas = Image.new("RGB", (wide, high + below), "white")
    draw = ImageDraw.Draw(canvas)
    for r, (images, label) in enumerate(zip(rows, labels, strict=True)):
        top = GAP + r * (cell_h + GAP)
        draw.text((GAP + 2, top + cell_h / 2), label, fill=INK, font=font, anchor="lm")
        for c, image in enumerate(images):
            tile = _picture(image).resize((cell_w, cell_h), Image.Resampling.NEAREST)
            canvas.paste(tile, (left + c * (cell_w + GAP), top))
    for (name, colour), (x, y) in zip(legend, places, strict=True):
        corner, side = (left + x, high + y), 14 * zoom
        draw.rectangle((*corner, corner[0] + side - 1, corner[1] + side - 1), fill=colour)
        draw.text((left + x + zoom * CHIP, corner[1] + side / 2), name, fill=INK, font=font, anchor="lm")
    return canvas


def _flow(widths: Sequence[int], room: int, zoom: int) -> tuple[list[tuple[int, int]], int]:
    """Return (x, y) of entries of a legend, as many in a line as there is room for, and the height of all lines."""
    places, x, y = [], 0, GAP
    for width in widths:
        if x and x + width > room:
            x, y = 0, y + 22 * zoom
        places.append((x, y))
        x += width + 12 * zoom
    return places, y + 22 * zoom if places else 0


def _picture(image: Tensor) -> Image.Image:
    pixels = (image[:3] if image.shape[0] >= 3 else image[:1].expand(3, -1, -1)).clamp(0, 1)
    return Image.fromarray((pixels.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
