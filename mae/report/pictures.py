"""Pictures of reconstructions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

LABELS = ("original", "masked", "reconstruction", "pasted")
GAP = 6
MARGIN = 108
CELL = 112  # small images are enlarged to about this, by whole factors, so that their pixels stay square


def save_reconstructions(rows: Sequence[Tensor], path: Path, labels: Sequence[str] = LABELS) -> Path:
    """Write rows of images (B, C, H, W) in [0, 1] as one labelled PNG, a column an image.

    Where C is neither 1 nor 3, the first three channels are shown: whoever wants others, or pixels of another range, makes
    false colours of them before, see ``mae.data.statistics.false_colours``.

    Returns:
        The path.
    """
    height, width = rows[0].shape[-2:]
    factor = max(1, round(CELL / max(height, width)))
    cell_h, cell_w = height * factor, width * factor
    columns = rows[0].shape[0]
    size = (MARGIN + columns * (cell_w + GAP) + GAP, len(rows) * (cell_h + GAP) + GAP)
    canvas = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=14)
    for r, (images, label) in enumerate(zip(rows, labels, strict=True)):
        top = GAP + r * (cell_h + GAP)
        draw.text((GAP + 2, top + cell_h / 2), label, fill=(70, 70, 70), font=font, anchor="lm")
        for c, image in enumerate(images):
            tile = _picture(image).resize((cell_w, cell_h), Image.Resampling.NEAREST)
            canvas.paste(tile, (MARGIN + GAP + c * (cell_w + GAP), top))
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(path, optimize=True)
    return path


def _picture(image: Tensor) -> Image.Image:
    pixels = (image[:3] if image.shape[0] >= 3 else image[:1].expand(3, -1, -1)).clamp(0, 1)
    return Image.fromarray((pixels.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
