"""The steps of worth.py, in order: what is done already is kept, and what is missing is run."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from frozen_set import KINDS, FrozenSet, draw, open_set, parse_budget
from pretraining_process import keep_settings, named_folders, numbers, pretrain, read_json, write_json
from rich.console import Console
from worth_table import collect, sentences, table_of, write_tables

from mae.checkpoints.load import load_encoder
from mae.config.composing import compose
from mae.config.schema.components import Component
from mae.downstream.prepare import prepare
from mae.downstream.starting_weights import model_of
from mae.report.rerun import override
from mae.report.tables import print_table

ONE_DEVICE = "trainer.devices=1"
WIDTH = 170
"""Columns that a table takes on the console, at least."""


@dataclass(frozen=True)
class Step:
    """What is run at once, and kept.

    Attributes:
        kind: ``pretraining``, ``frozen``, ``finetune`` or ``scratch``.
        set: Name of the folder.
        labels: As it was asked for, such as 5 or 10%; empty for pretraining.
        seed: Of the draw of labels, and of training.
        length: Of the default number of epochs.
    """

    kind: str
    set: str
    labels: str = ""
    seed: int = 0
    length: float = 1.0

    @property
    def place(self) -> str:
        """Folder of the step, in --out."""
        if self.kind == "pretraining":
            return f"{self.set}/pretraining"
        drawn = f"{self.set}/{self.labels.replace('%', '_percent')}_seed{self.seed}"
        return f"{drawn}/{self.kind}" if self.kind == "frozen" else f"{drawn}/{self.kind}_x{self.length:g}"

    def __str__(self) -> str:
        if self.kind == "pretraining":
            return f"{self.set}: pretraining"
        labels = self.labels if "%" in self.labels else f"{self.labels} a class"
        words = {"frozen": "frozen features", "finetune": "fine-tuning", "scratch": "from scratch"}
        length = "" if self.kind == "frozen" or self.length == 1 else f", {self.length:g} of the length"
        return f"{self.set}, {labels}: {words[self.kind]}{length}"


class Worth:
    """The study: folders, what is asked of them, and where it is kept."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.out = options, Path(options.out)
        self.console = Console(soft_wrap=True, highlight=False)
        self.folders = named_folders(options.folders)
        self.budgets = {text.strip(): parse_budget(text) for text in options.labels.split(",")}
        self.lengths = numbers(options.lengths, "--lengths", float, lambda value: value > 0)
        self.seeds = numbers(options.seeds, "--seeds", int, lambda value: value >= 0)
        for folder in self.folders.values():  # what cannot be drawn is said before anything is trained
            splits = open_set(folder)
            for budget in self.budgets.values():
                draw(splits, budget, 0)
        self._frozen: dict[str, tuple[FrozenSet, dict[tuple[str, int], np.ndarray]]] = {}
        keep_settings(self.out, self.folders, minutes=options.minutes, overrides=options.overrides)

    def steps(self) -> Iterator[Step]:
        """Yield every step, a set after the other."""
        for name in self.folders:
            yield Step("pretraining", name)
            for seed in self.seeds:
                for labels in self.budgets:
                    yield Step("frozen", name, labels, seed)
                    for length in self.lengths:
                        yield Step("finetune", name, labels, seed, length)
                        yield Step("scratch", name, labels, seed, length)

    def run(self) -> None:
        """Do what is missing, and show the table of a set when it is complete."""
        steps = list(self.steps())
        missing = [step for step in steps if self.seconds(step) is None]
        if len(missing) < len(steps):
            self.console.print(
                f"{len(steps) - len(missing)} of {len(steps)} steps are in {self.out} already", style="dim"
            )
        for number, step in enumerate(missing):
            self.console.print(f"[{number + 1}/{len(missing)}] {step}; {self.left(missing[number:])}", markup=False)
            began = time.perf_counter()
            said = getattr(self, f"do_{step.kind}")(step)
            write_json(self.out / step.place / "seconds.json", {"seconds": time.perf_counter() - began})
            self.console.print(f"    {said}, {time.perf_counter() - began:.0f} s", style="dim", markup=False)
            write_tables(self.out, collect(self.out, steps))
            if number + 1 == len(missing) or missing[number + 1].set != step.set:
                self._frozen.clear()
                rows = [row for row in collect(self.out, steps) if row.set == step.set]
                print_table(Console(width=max(WIDTH, self.console.width)), table_of(step.set, rows))
                self.console.print(self.spent(step.set), style="dim")
        rows = collect(self.out, steps)
        write_tables(self.out, rows)
        for sentence in sentences(self.out, rows):
            self.console.print(sentence, markup=False)
        self.console.print(f"table    {self.out / 'worth.md'}")

    def seconds(self, step: Step) -> float | None:
        """Return how long a step took; None where it has not been done."""
        path = self.out / step.place / "seconds.json"
        return float(read_json(path)["seconds"]) if path.is_file() else None

    def left(self, missing: Sequence[Step]) -> str:
        """Return how long the missing steps will take: as long as others of their kind, or as known ones on average."""
        known: dict[tuple[str, float], list[float]] = {}
        for step in self.steps():
            if step.kind != "pretraining" and (taken := self.seconds(step)) is not None:
                known.setdefault((step.kind, step.length), []).append(taken)
        if not known and any(step.kind != "pretraining" for step in missing):
            return f"{self.options.minutes:g} minutes for each pretraining, the rest is timed as it goes"
        means = {key: sum(values) / len(values) for key, values in known.items()}
        default = sum(means.values()) / len(means) if means else 0.0
        seconds = sum(
            60 * self.options.minutes if step.kind == "pretraining" else means.get((step.kind, step.length), default)
            for step in missing
        )
        return f"about {max(1, round(seconds / 60))} minutes left"

    def spent(self, name: str) -> str:
        """Say where the time of a set went."""
        parts: dict[str, float] = {}
        for step in self.steps():
            if step.set == name:
                parts[step.kind] = parts.get(step.kind, 0.0) + (self.seconds(step) or 0.0)
        return "minutes: " + ", ".join(f"{kind} {seconds / 60:.1f}" for kind, seconds in parts.items())

    def do_pretraining(self, step: Step) -> str:
        """Pretrain as a user would, in a process of its own."""
        results = pretrain(self.folders[step.set], self.out / step.place, self.options.minutes, self.options.overrides)
        return f"{results['epochs']} epochs, {results['images_seen']:,} images seen in {results['steps']:,} steps"

    def do_frozen(self, step: Step) -> str:
        """Measure frozen features of the labels that the fine-tuning of this seed has."""
        if step.set not in self._frozen:
            folder = self.folders[step.set]
            splits = open_set(folder)
            drawn = {
                (labels, seed): draw(splits, budget, seed)
                for labels, budget in self.budgets.items()
                for seed in self.seeds
            }
            wanted = np.unique(np.concatenate(list(drawn.values())))
            self._frozen[step.set] = FrozenSet(folder, self.out / step.set / "pretraining", wanted), drawn
        images, drawn = self._frozen[step.set]
        labelled = drawn[step.labels, step.seed]
        right = {f"probe_{kind}": images.probe(kind, labelled) for kind in KINDS}
        right |= {f"knn_{kind}": images.knn(kind, labelled) for kind in KINDS}
        found = {
            "split": images.data.scored[0],
            "labels": len(labelled),
            "right": {way: "".join(map(str, values.int().tolist())) for way, values in right.items()},
        }
        (self.out / step.place).mkdir(parents=True, exist_ok=True)
        write_json(self.out / step.place / "frozen.json", found)
        return ", ".join(f"{way.replace('_', ' ')} {float(values.float().mean()):.1%}" for way, values in right.items())

    def do_finetune(self, step: Step) -> str:
        """Fine-tune the pretrained encoder."""
        return self._tune(step, override("checkpoint", str(self.out / step.set / "pretraining")), {})

    def do_scratch(self, step: Step) -> str:
        """Train the same network from random weights."""
        encoder = load_encoder(self.out / step.set / "pretraining" / "encoder")
        same = {
            "image_size": list(encoder.image_size),
            "channels": encoder.in_channels,
            "mean": list(encoder.pixel_mean or ()),
            "std": list(encoder.pixel_std or ()),
        }
        return self._tune(step, "checkpoint=null", same, model_of(encoder))

    def _tune(self, step: Step, start: str, data: dict[str, Any], model: Component | None = None) -> str:
        run, budget = self.out / step.place, self.budgets[step.labels]
        given = [
            "protocol=finetune",
            start,
            "data=image_folder",
            override("data.root", str(self.folders[step.set].resolve())),
            f"seed={step.seed}",
            *([f"labels_per_class={budget.per_class}"] if budget.per_class else []),
            *([f"label_fraction={budget.fraction}"] if budget.fraction else []),
            override("run_dir", str(run)),
            "trainer.progress=false",
            "baselines=false",
            ONE_DEVICE,
        ]

        def prepared(*overrides: str) -> Any:
            config = compose("finetune", [*given, *overrides])
            for key, value in data.items():
                setattr(config.data, key, value)
            config.model = model or config.model
            return prepare(config, [*given, *overrides])

        begun = ["resume=true"] if (run / "config.yaml").is_file() else []
        job = prepared(*begun)
        if step.length != 1 and not begun:
            job = prepared(f"epochs={max(1, round(step.length * job.setting.config.epochs))}")
        results = job.run()
        top1 = results["test_top1"] if "test_top1" in results else results["val_top1"]
        return f"{top1:.1%} after {results['epochs']} epochs of {results['labelled_images']:,} images"
