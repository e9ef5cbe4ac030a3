"""What worth.py has found so far: a row for each set, number of labels and length, and what it says."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mae.evaluation.paired import Difference, paired_runs
from mae.report.tables import Row as Line
from mae.report.tables import Table, to_markdown

if TYPE_CHECKING:
    from worth_study import Step

OTHERS = {"probe_pretrained": "probe", "scratch": "scratch", "probe_pixels": "raw pixels"}
"""What fine-tuning stands beside, and must not be below."""
SHOWN = {
    "finetune": "tuned",
    "scratch": "scratch",
    "probe_pretrained": "probe",
    "probe_random": "random",
    "probe_pixels": "pixels",
    "knn_pretrained": "kNN",
    "knn_random": "random",
    "knn_pixels": "pixels",
}


@dataclass
class Row:
    """The figures of a set at a number of labels and a length of fine-tuning.

    Attributes:
        set: Name of the folder.
        labels: As asked for.
        length: Of the default.
        split: That is scored.
        right: By way and seed, which of the scored images are right: (N,) bool.
        images: Labelled ones, by seed.
    """

    set: str
    labels: str
    length: float
    split: str = ""
    right: dict[str, dict[int, Tensor]] = field(default_factory=dict)
    images: dict[int, int] = field(default_factory=dict)

    def accuracy(self, way: str) -> float | None:
        """Return the mean over the seeds."""
        values = self.right.get(way)
        return sum(float(one.float().mean()) for one in values.values()) / len(values) if values else None

    def difference(self, ours: str, other: str) -> Difference | None:
        """Return the difference over the seeds that both have; None where there is none."""
        first, second = self.right.get(ours, {}), self.right.get(other, {})
        seeds = sorted(first.keys() & second.keys())
        if not seeds:
            return None
        return paired_runs(torch.stack([first[seed] for seed in seeds]), torch.stack([second[seed] for seed in seeds]))

    @property
    def name(self) -> str:
        """What a person calls it."""
        labels = self.labels if "%" in self.labels else f"{self.labels} a class"
        return f"{self.set}, {labels}" + ("" if self.length == 1 else f", {self.length:g} of the length")


def collect(out: Path, steps: Iterable[Step]) -> list[Row]:
    """Read what the steps that are done have left."""
    rows: dict[tuple[str, str, float], Row] = {}
    steps = list(steps)
    for step in steps:
        place = out / step.place
        if step.kind in ("finetune", "scratch"):
            row = rows.setdefault((step.set, step.labels, step.length), Row(step.set, step.labels, step.length))
            if (place / "seconds.json").is_file():
                row.right.setdefault(step.kind, {})[step.seed] = _right(place / "predictions.csv")
    for step in steps:
        path = out / step.place / "frozen.json"
        if step.kind == "frozen" and path.is_file():
            found = json.loads(path.read_text(encoding="utf-8"))
            for row in rows.values():
                if (row.set, row.labels) == (step.set, step.labels):
                    row.split, row.images[step.seed] = found["split"], found["labels"]
                    for way, text in found["right"].items():
                        row.right.setdefault(way, {})[step.seed] = torch.tensor([digit == "1" for digit in text])
    return [row for row in rows.values() if row.right]


def _right(path: Path) -> Tensor:
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return torch.tensor([line["label"] == line["predicted"] for line in csv.DictReader(file)])


def table_of(name: str, rows: Sequence[Row]) -> Table:
    """Return the rows of a set as a table."""
    head = ("labels", "length", *SHOWN.values(), *(f"tuned less {other}" for other in OTHERS.values()))
    lines = []
    for row in rows:
        cells = ["" if (value := row.accuracy(way)) is None else f"{100 * value:.1f}" for way in SHOWN]
        cells += [
            "" if (gap := row.difference("finetune", other)) is None else str(gap).replace(" points", "")
            for other in OTHERS
        ]
        labels = row.labels if "%" in row.labels else f"{row.labels} a class"
        counts = sorted(set(row.images.values()))
        lines.append(Line((f"{labels} ({', '.join(map(str, counts))})", f"{row.length:g}", *cells)))
    scored = next((len(one) for row in rows for values in row.right.values() for one in values.values()), 0)
    split = next((row.split for row in rows if row.split), "")
    note = (
        f"Accuracy on {scored:,} {'validation' if split == 'val' else 'test'} images in percent; probe and kNN of frozen features, "
        f"beside random weights and raw pixels; differences with their 95% interval, paired "
        f"over the images{' and the seeds' if any(len(row.images) > 1 for row in rows) else ''}."
    )
    return Table(name, head, lines, note, names=1)


def write_tables(out: Path, rows: Sequence[Row]) -> None:
    """Write worth.md and worth.json."""
    sets = list(dict.fromkeys(row.set for row in rows))
    said = "\n".join(f"- {sentence}" for sentence in sentences(out, rows))
    text = "\n".join([*(to_markdown(table_of(name, [row for row in rows if row.set == name])) for name in sets), said])
    (out / "worth.md").write_text(text + "\n", encoding="utf-8")
    content = [_plain(row) for row in rows]
    (out / "worth.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _plain(row: Row) -> dict[str, Any]:
    gaps = {other: row.difference("finetune", other) for other in OTHERS}
    gaps |= {"probe_random": row.difference("probe_pretrained", "probe_random")}
    gaps |= {"knn_random": row.difference("knn_pretrained", "knn_random")}
    return {
        "set": row.set,
        "labels": row.labels,
        "labelled_images": sorted(set(row.images.values())),
        "length": row.length,
        "split": row.split,
        "seeds": sorted(row.images),
        "top1": {way: row.accuracy(way) for way in SHOWN if row.accuracy(way) is not None},
        "differences": {name: gap.plain for name, gap in gaps.items() if gap is not None},
    }


def sentences(out: Path, rows: Sequence[Row]) -> list[str]:
    """Say where fine-tuning is below what it should not be below, where it is above scratch, and which verdicts are wrong."""
    said = []
    for other, name in OTHERS.items():
        gaps = [(row, gap) for row in rows if (gap := row.difference("finetune", other)) is not None]
        below = [f"{row.name} {gap}" for row, gap in gaps if gap.word == "hurt"]
        if gaps:
            said.append(f"Fine-tuning is below {name} in {len(below)} of {len(gaps)}: {'; '.join(below) or 'nowhere'}.")
    words = [one.word for row in rows if (one := row.difference("finetune", "scratch")) is not None]
    if words:
        said.append(f"It is above scratch outside the interval in {words.count('helped')} of {len(words)}.")
    return said + _verdicts(out, rows)


def _verdicts(out: Path, rows: Sequence[Row]) -> list[str]:
    """Compare the word of each pretraining's verdict with what the probe gained over random weights, on the scored images."""
    wrong, seen = [], 0
    for name in dict.fromkeys(row.set for row in rows):
        path = out / name / "pretraining" / "results.json"
        results: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        gaps = {row.name: row.difference("probe_pretrained", "probe_random") for row in rows if row.set == name}
        word = results.get("verdict")
        if word is None or not any(gaps.values()):
            continue
        seen += 1
        opposite = {"helped": "hurt", "hurt": "helped"}.get(word)
        found = {gap.word for gap in gaps.values() if gap is not None}
        # A tie may be decided by more images or labels; it is contradicted where every number of labels decides alike.
        if opposite in found or (word == "no difference" and len(found) == 1 and word not in found):
            wrong.append(
                f"{name} says {word!r}, the probe {'; '.join(f'{row} {gap}' for row, gap in gaps.items() if gap)}"
            )
    return (
        [f"Verdicts that the probe contradicts: {len(wrong)} of {seen}: {'; '.join(wrong) or 'none'}."] if seen else []
    )
