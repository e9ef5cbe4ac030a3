"""The runs of choices.py: which choices there are, what is run, and the table."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from frozen_set import FrozenSet, open_set
from pretraining_process import keep_settings, named_folders, numbers, pretrain, read_json, write_json
from rich.console import Console

from mae.config.choosing.model import decoder_sizes
from mae.data.few_labels import few_labels
from mae.data.splits import Splits
from mae.evaluation.paired import paired_runs
from mae.report.tables import Row, Table, print_table, to_markdown

LABELS = 2000
SCORED = 2000
"""Images of the test, and of validation, at most: encoding more than twice that many would take longer than a short pretraining."""
DEFAULT = "default"
DECODER_SIZES = ("width", "depth", "heads")
WIDTH = 150
"""Columns that a table takes on the console, at least."""

Values = Mapping[str, Any]
"""The stored config of the default run, by groups."""


def choices_beside(config: Values) -> dict[str, list[str]]:
    """Return by name the overrides of every choice that differs from a default run, one thing at a time."""
    model, decoder, data = config["model"], config["decoder"], config["data"]
    patch, width, depth, heads = (model[key] for key in ("patch_size", "width", "depth", "heads"))
    size = data["image_size"] if isinstance(data["image_size"], int) else min(data["image_size"])
    found: dict[str, list[str]] = {}
    for factor, word in ((0.5, "half"), (2.0, "twice")):
        other = patch * factor
        if other >= 2 and other == int(other) and size % other == 0 and size // other >= 2:
            name = f"patches of {int(other)}: {(size // int(other)) ** 2} tokens"
            found[name] = [f"model.patch_size={int(other)}"]
            if factor == 0.5:
                found[f"{name} and batch 64"] = [f"model.patch_size={int(other)}", "batch_size=64"]
        blocks = round(depth * factor)
        found[f"{word} as deep: {blocks} blocks"] = [f"model.depth={blocks}"]
    for wide in (64, 96, 128, 192, 256, 384):
        if wide != width and width / 2 <= wide <= 2 * width:
            each = next((count for count in (heads, 3, 4, 6, 2) if wide % count == 0), 1)
            sizes = zip(DECODER_SIZES, decoder_sizes(wide), strict=True)
            found[f"{wide} wide"] = [
                f"model.width={wide}",
                f"model.heads={each}",
                *(f"decoder.{k}={v}" for k, v in sizes),
            ]
    for batch in (16, 32, 64, 128, 256, 512):
        if batch != config["batch_size"]:
            found[f"batch {batch}"] = [f"batch_size={batch}"]
    for ratio in (0.5, 0.6, 0.7, 0.75, 0.8, 0.9):
        if ratio != config["masking"]["ratio"]:
            found[f"{100 * ratio:g}% hidden"] = [f"masking.ratio={ratio}"]
    for factor in (0.5, 2, 4):
        found[f"rate x{factor:g}"] = [f"optim.base_lr={config['optim']['base_lr'] * factor:.4g}"]
    for layers in (1, 2, 4, 8):
        if layers != decoder["depth"]:
            found[f"decoder of {layers} blocks" if layers > 1 else "decoder of one block"] = [f"decoder.depth={layers}"]
    for scale in (0.2, 0.4, 0.6, 0.8, 1.0):
        if scale != data["min_scale"]:
            found[f"crops of {100 * scale:g}% or more" if scale < 1 else "no crops"] = [f"data.min_scale={scale}"]
    found |= _decoders_and_masks(config, size // patch)
    found["no flips" if data["flip"] else "flips"] = [f"data.flip={str(not data['flip']).lower()}"]
    plain = config["objective"].get("normalize")
    found["plain pixels" if plain else "normalised pixels"] = [f"objective.normalize={str(not plain).lower()}"]
    return found


def _decoders_and_masks(config: Values, side: int) -> dict[str, list[str]]:
    """Return what is predicted otherwise, and hidden otherwise; ``side`` in patches."""
    decoder, ratio = config["decoder"], config["masking"]["ratio"]
    sizes = [f"decoder.{key}={decoder[key]}" for key in DECODER_SIZES]
    found: dict[str, list[str]] = {}
    for fraction, share in ((1, "all"), (0.5, "half"), (0.25, "a quarter")):
        predicted = f"decoder.predict_fraction={fraction:g}"
        found[f"cross-attention predicting {share}"] = ["decoder=cross_attention", predicted, *sizes]
        if fraction < 1:
            found[f"predicting {share}"] = [predicted]
    for hidden in dict.fromkeys((0.5, ratio)):
        found[f"block masks of {100 * hidden:g}%"] = ["masking=block", f"masking.ratio={hidden}"]
    if side % 2 == 0:
        found |= {"squares of 2x2": ["masking.block=2"], "grid masks": ["masking=grid"]}
    found["8 class tokens"] = ["model.class_tokens=8"]
    return found


def show_choices() -> None:
    """Print the choices beside the default of images of 64 pixels."""
    from mae.config.composing import load_preset

    wide, deep, heads = decoder_sizes(192)
    config = {
        "model": dict(load_preset("small_64")),
        "decoder": {"width": wide, "depth": deep, "heads": heads},
        "data": {"image_size": 64, "min_scale": 0.2, "flip": True},
        "batch_size": 64,
        "masking": {"ratio": 0.75},
        "optim": {"base_lr": 2e-3},
        "objective": {"normalize": True},
    }
    console = Console(soft_wrap=True, highlight=False)
    console.print("of images of 64 pixels; others follow from the default run of a folder", style="dim")
    for name, overrides in choices_beside(config).items():
        console.print(f"{name:32} {' '.join(overrides)}", markup=False)


class Study:
    """Folders, choices, and where the figures are kept."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.epochs, self.out = options.epochs, Path(options.out)
        self.minutes = None if self.epochs else options.minutes
        self.length = f"{self.epochs} epochs" if self.epochs else f"{options.minutes:g} minutes"
        self.also = {" ".join(text.split()): text.split() for text in options.also}
        self.only = [name.strip() for name in options.only.split(",") if name.strip()]
        self.console = Console(soft_wrap=True, highlight=False)
        self.folders = named_folders(options.folders)
        self.seeds = numbers(options.seeds, "--seeds", int, lambda value: value >= 0)
        self.splits = {name: open_set(folder) for name, folder in self.folders.items()}
        keep_settings(self.out, self.folders, minutes=self.minutes, epochs=self.epochs, scored=SCORED)

    def run(self) -> None:
        """Do what is missing, a folder after the other, the default first."""
        for name in self.folders:
            for seed in self.seeds:
                self._measure(name, DEFAULT, [], seed)
            choices = self._choices(name)
            missing = [
                (choice, seed) for choice in choices for seed in self.seeds if not self._figure(name, choice, seed)
            ]
            for number, (choice, seed) in enumerate(missing):
                said = f"{name} [{number + 1}/{len(missing)}]: {choice}, {self.length} of pretraining each"
                self.console.print(said, style="dim", markup=False)
                self._measure(name, choice, choices[choice], seed)
            print_table(Console(width=max(WIDTH, self.console.width)), self._table(name))
        self.console.print(f"table    {self.out / 'choices.md'}")

    def _choices(self, name: str) -> dict[str, list[str]]:
        from omegaconf import OmegaConf

        stored: Any = OmegaConf.to_container(OmegaConf.load(self._place(name, DEFAULT, self.seeds[0]) / "config.yaml"))
        found = choices_beside(stored)
        unknown = [choice for choice in self.only if choice not in found and choice != DEFAULT]
        if unknown:
            raise ValueError(f"--only {unknown[0]!r} is no choice of {name}: choose among {', '.join(found)}")
        held = {"batch_size": stored["batch_size"], "optim.base_lr": stored["optim"]["base_lr"]}
        chosen = {choice: overrides for choice, overrides in found.items() if not self.only or choice in self.only}
        return {choice: [*overrides, *_held(overrides, held)] for choice, overrides in chosen.items()} | self.also

    def _place(self, name: str, choice: str, seed: int) -> Path:
        plain = "".join(letter if letter.isalnum() or letter == "." else "_" for letter in choice)
        return self.out / name / f"{plain}_seed{seed}"

    def _figure(self, name: str, choice: str, seed: int) -> dict[str, Any] | None:
        path = self._place(name, choice, seed) / "figure.json"
        return read_json(path) if path.is_file() else None

    def _measure(self, name: str, choice: str, overrides: Sequence[str], seed: int) -> None:
        """Pretrain and score, unless that is done; a choice that cannot be run is kept with its reason."""
        if self._figure(name, choice, seed):
            return
        run = self._place(name, choice, seed)
        quick = ["callbacks.pictures=0", "callbacks.knn=false", "callbacks.probe=false", "callbacks.rank=false"]
        if self.epochs:
            quick.append(f"epochs={self.epochs}")
        figure: dict[str, Any] = {"set": name, "choice": choice, "seed": seed, "overrides": list(overrides)}
        try:
            results = pretrain(self.folders[name], run, self.minutes, [*quick, f"seed={seed}", *overrides])
        except ValueError as error:
            if choice == DEFAULT:
                raise
            figure["failed"] = str(error)
        else:
            figure |= {key: results[key] for key in ("epochs", "steps", "images_seen", "parameters")}
            figure["minutes"] = results["seconds"] / 60
            figure |= self._score(name, run)
        run.mkdir(parents=True, exist_ok=True)
        write_json(run / "figure.json", figure)
        said = figure.get("failed") or (
            f"probe {figure['top1']:.1%}, random weights {figure['random_top1']:.1%}, {figure['steps']:,} steps, "
            f"{figure['images_seen']:,} images, {figure['minutes']:.2g} minutes"
        )
        self.console.print(f"{name}, {choice}: {said}", markup=False)
        self._write()

    def _score(self, name: str, run: Path) -> dict[str, Any]:
        labelled = labels_of(self.splits[name])
        images = FrozenSet(self.folders[name], run, labelled, most=SCORED)
        right = {kind: images.probe(kind, labelled) for kind in ("pretrained", "random")}
        top1, random = (float(values.float().mean()) for values in right.values())
        knn, random_knn = (float(images.knn(kind, labelled).float().mean()) for kind in right)
        text = "".join(map(str, right["pretrained"].int().tolist()))
        return {
            "top1": top1,
            "random_top1": random,
            "knn": knn,
            "random_knn": random_knn,
            "labels": len(labelled),
            "split": images.data.scored[0],
            "right": text,
        }

    def _figures(self, name: str) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for path in sorted((self.out / name).glob("*/figure.json"), key=lambda path: path.stat().st_mtime):
            figure = read_json(path)
            found.setdefault(figure["choice"], []).append(figure)
        return found

    def _table(self, name: str) -> Table:
        figures = self._figures(name)
        done = {choice: [one for one in ones if "top1" in one] for choice, ones in figures.items()}
        default = {one["seed"]: right_of(one) for one in done.get(DEFAULT, [])}
        rows = []
        for choice, ones in done.items():
            if not ones:
                rows.append(Row((choice, "", "", "", "", "", figures[choice][0]["failed"], "", "", "")))
                continue
            both = [one for one in ones if one["seed"] in default and choice != DEFAULT]
            gap = ""
            if both:
                pair = torch.stack([right_of(one) for one in both]), torch.stack([default[one["seed"]] for one in both])
                gap = str(paired_runs(*pair))
            means = {key: sum(one[key] for one in ones) / len(ones) for key in ones[0] if key in MEANS}
            cells = [f"{100 * means['top1']:.1f}", gap, f"{100 * means['random_top1']:.1f}"]
            cells += [f"{100 * means['knn']:.1f}", f"{100 * means['random_knn']:.1f}"]
            cells += [
                f"{means['steps']:,.0f}",
                f"{means['images_seen']:,.0f}",
                f"{means['epochs']:.0f}",
                f"{means['minutes']:.2f}",
            ]
            rows.append(Row((choice, *cells), ours=choice == DEFAULT))
        first = next((one for ones in done.values() for one in ones), None)
        note = ""
        if first is not None:
            split = "validation" if first["split"] == "val" else "test"
            note = (
                f"Logistic regression and whitened kNN on {first['labels']:,} labels, accuracy on "
                f"{len(first['right']):,} {split} images in percent. The difference has its "
                f"95% interval, paired over the images; another seed is not in it."
            )
        head = (
            "choice",
            "probe",
            "less the default's",
            "random weights",
            "kNN",
            "random weights",
            "steps",
            "images seen",
            "epochs",
            "minutes",
        )
        return Table(f"{name}, {self.length} of pretraining each", head, rows, note)

    def _write(self) -> None:
        (self.out / "choices.md").write_text(
            "\n".join(to_markdown(self._table(name)) for name in self.folders), encoding="utf-8"
        )
        plain = [
            {key: value for key, value in one.items() if key != "right"}
            for name in self.folders
            for ones in self._figures(name).values()
            for one in ones
        ]
        write_json(self.out / "choices.json", plain)


def _held(overrides: Sequence[str], held: Mapping[str, Any]) -> list[str]:
    """Return what stays as in the default run, which else would follow from the choice; the rate follows from the batch."""
    given = {text.partition("=")[0] for text in overrides}
    if "batch_size" in given:
        return []
    return [f"{key}={value}" for key, value in held.items() if key not in given]


MEANS = ("top1", "random_top1", "knn", "random_knn", "steps", "images_seen", "epochs", "minutes")


def right_of(figure: dict[str, Any]) -> torch.Tensor:
    """Return which of the scored images are right, (N,) bool."""
    return torch.tensor([digit == "1" for digit in figure["right"]])


def labels_of(splits: Splits) -> np.ndarray:
    """Return up to 2,000 training images, the same share of every class."""
    train = splits.train
    assert train.labels is not None, "classes are labels"
    return few_labels(train.labels, train.classes, 0, None, min(1.0, LABELS / len(train)))
