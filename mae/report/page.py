"""One self-contained HTML page on a run: it can be mailed, and needs nothing beside it."""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from mae.data.statistics import shown_channels
from mae.report.curves import run_curves
from mae.report.tables import Table

CAPTION_SEGMENTED = "Images that are scored, with their masks, what was predicted, and where the two differ."
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
    config: Mapping[str, Any],
    results: Mapping[str, Any],
    verdicts: Sequence[str],
    choices: Sequence[str],
    *,
    tables: Sequence[Table] = (),
    figures: Sequence[Figure] = (),
    caption: str = "",
) -> Path:
    """Write ``report.html`` of a run.

    Args:
        folder: The run folder, whose metrics, pictures, config and environment are shown.
        config: Its config.
        results: Its final numbers.
        verdicts: What they mean, in sentences.
        choices: Lines ``key=value: reason``.
        tables: Results beside their baselines.
        figures: Beside the curves of the run's metrics.
        caption: What its reconstructions show, in the objective's words.

    Returns:
        The page.
    """
    environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    return write_page(
        folder / "report.html",
        title=f"{TITLES[results['stage']]}: {data_name(config['data'])}",
        lead=f"{folder.name}, {_epochs(results)}seed {config['seed']}, on {environment['device']}",
        verdicts=verdicts,
        tiles=tiles(results),
        tables=tables,
        pictures=run_pictures(folder, config, caption),
        pictures_title="Segmentations" if results.get("task") == "segmentation" else None,
        curves=[*figures, *run_curves(folder, results)],
        choices=[choice.split(": ", 1) for choice in choices],
        command=shlex.join(environment["command"]),
        config=(folder / "config.yaml").read_text(encoding="utf-8"),
        environment=json.dumps(environment, indent=2),
    )


def _epochs(results: Mapping[str, Any]) -> str:
    return f"{results['epochs']} epochs, " if "epochs" in results else ""


def data_name(options: Mapping[str, Any]) -> str:
    """Return what a person calls the data: a known name, the folder's, or the source's."""
    return options.get("name") or Path(options.get("root") or options["source"]).name or options["source"]


def run_pictures(folder: Path, config: Mapping[str, Any], caption: str) -> list[Picture]:
    """Return the final reconstructions and the first ones that were drawn in training; or segmentations."""
    segmentations = folder / "pictures" / "segmentations.png"
    if segmentations.is_file():
        return [Picture.read(segmentations, CAPTION_SEGMENTED + _colours(config["data"]))]
    final = folder / "pictures" / "reconstructions.png"
    if not final.is_file():
        return []
    caption += _colours(config["data"])
    pictures = [Picture.read(final, caption)]
    earlier = sorted((folder / "pictures").glob("epoch_*.png"))
    if len(earlier) > 1:
        pictures.append(
            Picture.read(earlier[0], f"The same after epoch {int(earlier[0].stem.removeprefix('epoch_'))}.")
        )
    return pictures


def _colours(options: Mapping[str, Any]) -> str:
    """Return the sentence of a caption that says which channels are seen, where they are not seen as they are."""
    channels = options.get("channels") or 3
    shown = shown_channels(channels, options.get("bits") or 8)
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
        "knn_top1": ("kNN accuracy, frozen", "{:.1%}"),
        "knn_top1_random": ("the same, random weights", "{:.1%}"),
        "knn_top1_pixels": ("the same, raw pixels", "{:.1%}"),
        "probe_top1": ("linear probe, trained beside", "{:.1%}"),
        "test_miou": ("test mean IoU", "{:.1%}"),
        "val_miou": ("validation mean IoU", "{:.1%}"),
        "val_pixel_accuracy": ("validation pixel accuracy", "{:.1%}"),
        "val_loss": ("validation loss", "{:.3f}"),
        "labelled_images": ("labelled images", "{:,}"),
        "images_seen": ("images seen", "{:,}"),
        "images_per_second": ("images per second", "{:,.0f}"),
        "waiting_share": ("waiting for data", "{:.0%}"),
        "parameters": ("parameters", "{:.3g} M"),
    }
    shown = {**results, "parameters": results.get("parameters", 0) / 1e6}
    return [(label, form.format(shown[key])) for key, (label, form) in forms.items() if key in results]
