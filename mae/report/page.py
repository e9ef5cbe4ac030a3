"""One self-contained HTML page on a run: it can be mailed, and needs nothing beside it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from mae.data.statistics import shown_channels
from mae.report.curves import run_curves
from mae.report.rerun import rerun_command
from mae.report.tables import Table

TITLES = {
    "pretrain": "Pretraining",
    "finetune": "Second stage",
    "features": "Frozen features",
    "evaluate": "Evaluation",
}


Figure = tuple[str, str]
"""A title, and a drawing as an ``<svg>`` element."""


@dataclass(frozen=True)
class Picture:
    """A PNG as base64, with what it shows."""

    data: str
    caption: str

    @classmethod
    def read(cls, path: Path, caption: str) -> Picture:
        """Read a PNG."""
        return cls(base64.b64encode(path.read_bytes()).decode("ascii"), caption)


def write_page(path: Path, **content: Any) -> Path:
    """Render the page; what a section lacks is left out."""
    environment = Environment(
        loader=PackageLoader("mae", "report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    empty: dict[str, Any] = {name: [] for name in ("tables", "pictures", "curves", "choices", "tiles", "verdicts")}
    partial = path.with_suffix(".partial")
    partial.write_text(environment.get_template("page.html.j2").render(empty | content), encoding="utf-8")
    partial.replace(path)
    return path


def write_run_report(
    folder: Path,
    results: Mapping[str, Any],
    verdicts: Sequence[str],
    choices: Sequence[str],
    *,
    data_name: str,
    seed: int,
    pictures: Sequence[Picture] = (),
    pictures_title: str = "Reconstructions",
    tables: Sequence[Table] = (),
    figures: Sequence[Figure] = (),
) -> Path:
    """Write ``report.html`` of a run.

    Args:
        folder: The run folder, whose metrics, config and environment are shown.
        results: Its final numbers, ``stage`` among them.
        verdicts: What they mean, in sentences.
        choices: Lines ``key=value: reason``.
        data_name: What a person calls the data.
        seed: Of the run.
        pictures: See ``run_pictures``.
        pictures_title: Above them.
        tables: Results beside their baselines.
        figures: Beside the curves of the run's metrics.

    Returns:
        The page.
    """
    environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    stage, overrides = results["stage"], environment.get("overrides")
    script = "pretrain" if stage == "pretrain" else "finetune"
    known = overrides is not None  # not of a baseline, which runs with the run that it is of, nor of earlier versions
    return write_page(
        folder / "report.html",
        title=f"{TITLES[stage]}: {data_name}",
        lead=f"{folder.name}, {_epochs(results)}seed {seed}, on {environment['device']}",
        verdicts=verdicts,
        tiles=tiles(results),
        tables=tables,
        pictures=pictures,
        pictures_title=pictures_title,
        curves=[*figures, *run_curves(folder, results)],
        choices=[choice.split(": ", 1) for choice in choices],
        command=rerun_command(environment["command"], script, overrides, folder) if known else None,
        config=(folder / "config.yaml").read_text(encoding="utf-8"),
        environment=json.dumps(environment, indent=2),
    )


def _epochs(results: Mapping[str, Any]) -> str:
    return f"{results['epochs']} epochs, " if "epochs" in results else ""


def run_pictures(folder: Path, caption: str, *, channels: int = 3, bits: int = 8) -> list[Picture]:
    """Return the final pictures of a run, segmentations or reconstructions, and the first ones that were drawn in training.

    Args:
        folder: The run folder.
        caption: What the final picture shows.
        channels: Of the images.
        bits: 8, or 16 for images that are floats.
    """
    drawn = [folder / "pictures" / f"{name}.png" for name in ("segmentations", "reconstructions")]
    final = next((path for path in drawn if path.is_file()), None)
    if final is None:
        return []
    pictures = [Picture.read(final, caption + _colours(channels, bits))]
    earlier = sorted((folder / "pictures").glob("epoch_*.png"))
    if len(earlier) > 1:
        pictures.append(
            Picture.read(earlier[0], f"The same after epoch {int(earlier[0].stem.removeprefix('epoch_'))}.")
        )
    return pictures


def _colours(channels: int, bits: int) -> str:
    """Return the sentence of a caption that says which channels are seen, where they are not seen as they are."""
    shown = shown_channels(channels, bits)
    if shown is None:
        return ""
    stretched = "stretched so that its mean ± 2.5 standard deviations fill the range"
    if len(shown) == 1:
        return f" The grey is {stretched}."
    red, green, blue = (number + 1 for number in shown)
    return f" False colours: channels {red}, {green} and {blue} of {channels} as red, green and blue, each {stretched}."


def tiles(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (label, value) of the figures that a reader looks for first."""
    forms = {
        "test_top1": ("test accuracy", "{:.1%}"),
        "test_top5": ("test accuracy, top 5", "{:.1%}"),
        "val_top1": ("validation accuracy", "{:.1%}"),
        "probe_top1": ("linear probe, frozen", "{:.1%}"),
        "probe_top1_random": ("the same, random weights", "{:.1%}"),
        "probe_top1_pixels": ("the same, raw pixels", "{:.1%}"),
        "knn_top1": ("kNN accuracy, frozen", "{:.1%}"),
        "knn_top1_random": ("the same, random weights", "{:.1%}"),
        "knn_top1_pixels": ("the same, raw pixels", "{:.1%}"),
        "test_miou": ("test mean IoU", "{:.1%}"),
        "val_miou": ("validation mean IoU", "{:.1%}"),
        "val_pixel_accuracy": ("validation pixel accuracy", "{:.1%}"),
        "val_loss": ("validation loss", "{:.3f}"),
        "labelled_images": ("labelled images", "{:,}"),
        "images_seen": ("images seen", "{:,}"),
        "images_per_second": ("images per second", "{:,.0f}"),
        "waiting_share": ("waiting for data", "{:.0%}"),
        "parameters": ("parameters", "{}"),
    }
    count = results.get("parameters", 0)
    shown = {**results, "parameters": f"{count / 1e6:.3g} M" if count >= 1e6 else f"{count:,}"}
    return [(label, form.format(shown[key])) for key, (label, form) in forms.items() if key in results]
