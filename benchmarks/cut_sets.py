"""Cut the labelled sets that choices are measured on: OUT/<set>/{train,test}/<class>/*.png, for streets val/ too.

    python benchmarks/cut_sets.py OUT [--camvid DIR] [--fashion DIR]

``digits`` (scikit-learn's) and ``letters`` (drawn in the fonts that Matplotlib ships, turned and sheared at random; to test, in
other fonts) need nothing. ``streets`` are patches of 64 px of CamVid, named after the class that most of their
pixels are of; those to validate on and to test come from other frames. ``fashion`` is Fashion-MNIST as files.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

NOT_LETTERS = ("cmex", "cmmi", "cmsy", "STIXNonUni", "STIXSiz")
STREET_CLASSES = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "cyclist",
)


def write(out: Path, split: str, name: str, number: int, pixels: np.ndarray) -> None:
    """Write one image of a class."""
    folder = out / split / name
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / f"{number:05d}.png")


def cut_digits(out: Path) -> None:
    """Write scikit-learn's 1,797 digits, a fifth of them to test."""
    images, labels = load_digits(return_X_y=True)
    images = (images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    parts = train_test_split(np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=0)
    for split, part in zip(("train", "test"), parts, strict=True):
        for index in part:
            write(out, split, str(labels[index]), index, images[index])


def cut_letters(out: Path, side: int = 32, copies: int = 20) -> None:
    """Draw A to Z in white on grey, ``copies`` of each letter and font."""
    fonts = sorted((Path(matplotlib.get_data_path()) / "fonts" / "ttf").glob("*.ttf"))
    fonts = [font for font in fonts if not font.name.startswith(NOT_LETTERS) and "Display" not in font.name]
    rng = np.random.default_rng(0)
    tested = set(rng.permutation(len(fonts))[: len(fonts) // 4].tolist())
    for index, font in enumerate(fonts):
        for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ":
            for copy in range(copies):
                canvas = Image.new("L", (96, 96), int(rng.integers(0, 100)))
                size, ink = int(rng.integers(45, 72)), int(rng.integers(150, 256))
                ImageDraw.Draw(canvas).text(
                    tuple(48 + rng.normal(0, 4, 2)), letter, ink, ImageFont.truetype(str(font), size), anchor="mm"
                )
                shear, turn = rng.normal(0, 0.12), rng.normal(0, 10)
                canvas = canvas.rotate(turn, Image.Resampling.BICUBIC, fillcolor=canvas.getpixel((0, 0)))
                canvas = canvas.transform(
                    canvas.size,
                    Image.Transform.AFFINE,
                    (1, shear, -48 * shear, 0, 1, 0),
                    Image.Resampling.BICUBIC,
                    fillcolor=canvas.getpixel((0, 0)),
                )
                pixels = np.asarray(canvas.resize((side, side), Image.Resampling.LANCZOS), np.float64)
                noisy = np.clip(pixels + rng.normal(0, 12, pixels.shape), 0, 255).astype(np.uint8)
                write(out, "test" if index in tested else "train", letter, index * copies + copy, noisy)


def cut_streets(
    camvid: Path, out: Path, side: int = 64, stride: int = 40, purity: float = 0.5, most: int = 1000, least: int = 100
) -> None:
    """Cut patches of which more than ``purity`` is one class, up to ``most`` of a class; no frame is in two splits."""
    frames = sorted((camvid / "train").glob("*.png"))
    validated, tested = frames[4::5], sorted((camvid / "val").glob("*.png"))
    kept_classes: set[str] = set()
    for split, paths in (
        ("train", [path for path in frames if path not in validated]),
        ("val", validated),
        ("test", tested),
    ):
        found: dict[str, list[np.ndarray]] = {}
        for path in paths:
            image, mask = (
                np.asarray(Image.open(path).convert("RGB")),
                np.asarray(Image.open(path.parent.with_name(f"{path.parent.name}annot") / path.name)),
            )
            for top in range(0, image.shape[0] - side + 1, stride):
                for left in range(0, image.shape[1] - side + 1, stride):
                    counts = np.bincount(mask[top : top + side, left : left + side].ravel(), minlength=12)[:11]
                    if counts.max() > purity * side**2:
                        name = STREET_CLASSES[counts.argmax()]
                        found.setdefault(name, []).append(image[top : top + side, left : left + side])
        kept_classes = kept_classes or {name for name, patches in found.items() if len(patches) >= least}
        for name in sorted(kept_classes & found.keys()):
            patches = found[name]
            kept = np.random.default_rng(0).permutation(len(patches))[:most]
            for number, index in enumerate(kept):
                write(out, split, name, number, patches[index])


def cut_fashion(root: Path, out: Path) -> None:
    """Write Fashion-MNIST as files."""
    from torchvision.datasets import FashionMNIST

    for split, train in (("train", True), ("test", False)):
        data = FashionMNIST(root, train=train)
        for number, (pixels, label) in enumerate(zip(data.data.numpy(), data.targets.tolist(), strict=True)):
            write(out, split, data.classes[label].replace("/", "-"), number, pixels)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--camvid", type=Path)
    parser.add_argument("--fashion", type=Path)
    given = parser.parse_args()
    cut_digits(given.out / "digits")
    cut_letters(given.out / "letters")
    if given.camvid:
        cut_streets(given.camvid, given.out / "streets")
    if given.fashion:
        cut_fashion(given.fashion, given.out / "fashion")
