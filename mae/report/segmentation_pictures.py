"""Pictures and tables of segmentations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.utils import draw_segmentation_masks

from mae.data.segmentation.masks import IGNORE, MOST_CLASSES
from mae.evaluation.segmentation_scores import SegmentationScores
from mae.report.pictures import Colour, tiled
from mae.report.tables import Row, Table

CAPTION = "Images that are scored, with their masks, what was predicted, and where the two differ."
LABELS = ("image", "truth", "prediction", "difference")
WRONG = (255, 45, 85)
UNLABELLED = (0, 0, 0)
DIM = 0.3  # of a prediction where there is no truth
PALE = 0.55  # of white over an image, beneath what is wrong
HARDEST = 20

# Okabe and Ito's, and muted ones that lie far from them and from each other, also for eyes that lack red or green cones.
CHOSEN = (
    *("e69f00", "56b4e9", "009e73", "f0e442", "0072b2", "d55e00", "cc79a7", "660022", "332288", "775544"),
    *("44eebb", "ccccff", "004455", "aa4488", "99bb99", "7788ee", "5544aa", "115500", "ccffbb", "ddcc88"),
)


@cache
def palette(count: int = MOST_CLASSES) -> tuple[Colour, ...]:
    """Return well distinct colours: 20 that were chosen, then each the one that lies farthest from all before it."""
    colours: list[Colour] = [(red, green, blue) for red, green, blue in map(bytes.fromhex, CHOSEN)]
    others = np.stack(np.meshgrid(*[np.arange(0, 256, 17)] * 3), axis=-1).reshape(-1, 3)
    places = _perceived(others)
    clear = (places[:, 0] > 0.4) & (places[:, 0] < 0.95)  # black stands for no label, and white is the paper
    others, places = others[clear], places[clear]
    nearest = np.linalg.norm(places[:, None] - _perceived(np.array(colours)), axis=-1).min(axis=1)
    while len(colours) < count:
        farthest = nearest.argmax()
        red, green, blue = others[farthest].tolist()
        colours.append((red, green, blue))
        nearest = np.minimum(nearest, np.linalg.norm(places - places[farthest], axis=-1))
    return tuple(colours[:count])


def _perceived(colours: np.ndarray) -> np.ndarray:
    """Return OKLab coordinates (N, 3) of sRGB colours (N, 3): distances are about as large as they look (Ottosson 2020)."""
    shares = colours / 255
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    cones = [[0.4122, 0.2119, 0.0883], [0.5363, 0.6807, 0.2817], [0.0514, 0.1074, 0.6300]]
    lab = [[0.2105, 1.9780, 0.0259], [0.7936, -2.4286, 0.7828], [-0.0041, 0.4506, -0.8087]]
    return np.asarray(np.cbrt(linear @ np.array(cones)) @ np.array(lab))


def save_segmentations(images: Tensor, truth: Tensor, prediction: Tensor, classes: Sequence[str], path: Path) -> Path:
    """Write images above their truth, their prediction and where the two differ as one PNG with a legend, a column an image.

    Args:
        images: (N, C, H, W) in [0, 1].
        truth: (N, H, W), classes by number, 255 where there is no label: black, and the prediction there is dimmed.
        prediction: (N, H, W), classes by number.
        classes: Names of the K classes.
        path: The file.

    Returns:
        The path.
    """
    images, truth, prediction = images.cpu(), truth.cpu(), prediction.cpu()
    unknown, colours = truth == IGNORE, palette(len(classes))
    seen = torch.unique(torch.cat([truth[~unknown], prediction[~unknown]])).tolist()
    named = {
        number: colours[number] for number in torch.unique(torch.cat([truth, prediction])).tolist() if number != IGNORE
    }
    black = torch.zeros(len(images), 3, *images.shape[-2:], dtype=torch.uint8)
    grey = (255 * (PALE + (1 - PALE) * images[:, :3].mean(dim=1, keepdim=True))).round().byte().expand_as(black)
    rows = [
        images,
        _painted(black, truth, named),
        _painted(_painted(black, prediction, named), unknown, {True: UNLABELLED}, alpha=1 - DIM),
        _painted(_painted(grey, truth != prediction, {True: WRONG}), unknown, {True: UNLABELLED}),
    ]
    legend = [(classes[number], colours[number]) for number in seen]
    legend += [("no label", UNLABELLED)] * bool(unknown.any()) + [("wrong", WRONG)]
    path.parent.mkdir(parents=True, exist_ok=True)
    tiled([row / 255 if row.dtype == torch.uint8 else row for row in rows], LABELS, legend).save(path, optimize=True)
    return path


def _painted(images: Tensor, ids: Tensor, colours: Mapping[int, Colour], alpha: float = 1.0) -> Tensor:
    """Return images (N, 3, H, W) uint8 with the colour of each id over the pixels of ids (N, H, W) that have it."""
    masks = torch.stack([ids == number for number in colours], dim=1)
    return torch.stack(
        [
            draw_segmentation_masks(image, mask, alpha=alpha, colors=list(colours.values()))
            for image, mask in zip(images, masks, strict=True)
        ]
    )


def iou_table(scores: SegmentationScores, classes: Sequence[str]) -> Table:
    """Return the intersection over union of each class that occurs, the lowest first, up to 20."""
    known = sorted((value, number) for number, value in enumerate(scores.iou) if value is not None)
    total = sum(scores.pixels)
    rows = [
        Row((classes[number], f"{value:.1%}", f"{scores.pixels[number] / total:.2%}"))
        for value, number in known[:HARDEST]
    ]
    title = "IoU by class" if len(known) <= HARDEST else f"The {HARDEST} hardest classes"
    return Table(title, ("class", "IoU", "share of the pixels"), rows)
