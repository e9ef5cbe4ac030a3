"""The demo: does pretraining on unlabelled digits help when five labels per class are all there is?"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from mae.config.composing import compose
from mae.downstream.baselines import PREDICTIONS_FILE
from mae.downstream.prepare import prepare as prepare_second_stage
from mae.evaluation.classification_scores import paired_right, read_right
from mae.evaluation.intervals import mean_interval
from mae.evaluation.paired import Difference, paired_runs
from mae.evaluation.verdict import opening
from mae.objectives.pixels import Pixels
from mae.report.curves import run_curves
from mae.report.page import run_pictures, tiles, write_page
from mae.report.rerun import override
from mae.report.tables import Row, Table, print_table
from mae.run import pretrain

DRAWS = (0, 1, 2)
LABELS_PER_CLASS = 5
MARKER = ".mae-demo"
"""Lies in a folder that a demo made, and that the next one may therefore replace."""
ONE_DEVICE = "trainer.devices=1"  # a launcher would start the whole demo again on each device
VARIANTS = {
    "probe": ("linear_probe", True),
    "probe_random": ("linear_probe", False),
    "finetune": ("finetune", True),
    "finetune_scratch": ("finetune", False),
}
"""By name: the protocol, and whether it starts from the pretrained weights; the network is the same in each."""
PAIRS = (("probe", "probe_random"), ("finetune", "finetune_scratch"))
HEAD = ("", "kNN, all labels", f"linear probe, {LABELS_PER_CLASS} a class", f"fine-tuned, {LABELS_PER_CLASS} a class")


def run_demo(folder: Path, draws: Sequence[int] = DRAWS, overrides: Sequence[str] = ()) -> Path:
    """Pretrain on the digits, then probe and fine-tune beside two baselines over several draws of the labels.

    Args:
        folder: Where everything is written; an earlier demo there is replaced.
        draws: Seeds of the draws of labels.
        overrides: Further overrides of every run.

    Returns:
        The report.

    Raises:
        ValueError: The folder holds something else than a demo.
    """
    console = Console()
    began = time.perf_counter()
    _clear(folder)
    folder.mkdir(parents=True)
    (folder / MARKER).touch()
    run = folder / "pretrain"
    given = [override("run_dir", str(run)), ONE_DEVICE, *overrides]
    results = dict(pretrain.prepare(compose("pretrain", given), given).run())

    jobs = [(name, *way, draw) for name, way in VARIANTS.items() for draw in draws]
    accuracies: dict[str, list[float]] = {name: [] for name in VARIANTS}
    console.print(
        f"second stage: {len(VARIANTS)} ways x {len(draws)} draws of {LABELS_PER_CLASS} labels a class", style="dim"
    )
    for name, protocol, pretrained, draw in track(jobs, description="second stage", console=console, transient=True):
        given = [
            override("checkpoint", str(run)) if pretrained else "checkpoint=null",
            f"protocol={protocol}",
            override("run_dir", str(folder / name / f"draw_{draw}")),
            f"seed={draw}",
            f"labels_per_class={LABELS_PER_CLASS}",
            "trainer.progress=false",
            "baselines=false",
            ONE_DEVICE,
            *overrides,
        ]
        accuracies[name].append(prepare_second_stage(compose("finetune", given), given).run()["test_top1"])

    summary = {"pretraining": results, "test_top1": accuracies}
    (folder / "results.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    table = result_table(results, accuracies)
    ahead = (_ahead(folder, ours, other, draws) for ours, other in PAIRS)
    report = _write_report(folder, run, results, table, tuple(ahead), time.perf_counter() - began)
    print_table(console, table)
    console.print(f"report   {report}", highlight=False, soft_wrap=True)
    return report


def result_table(results: Mapping[str, Any], accuracies: Mapping[str, Sequence[float]]) -> Table:
    """Return the demo's table: each way beside its baseline, mean and 95% interval over the draws."""
    draws = len(next(iter(accuracies.values())))
    rows = [
        Row(
            (
                "pretrained here, no labels",
                f"{results['knn_top1']:.1%}",
                str(mean_interval(accuracies["probe"])),
                str(mean_interval(accuracies["finetune"])),
            ),
            ours=True,
        ),
        Row(
            (
                "the same encoder, random weights",
                f"{results['knn_top1_random']:.1%}",
                str(mean_interval(accuracies["probe_random"])),
                "",
            )
        ),
        Row(("the same network, from scratch", "", "", str(mean_interval(accuracies["finetune_scratch"])))),
        Row(("raw pixels", f"{results['knn_top1_pixels']:.1%}", "", "")),
    ]
    return Table(
        f"What {LABELS_PER_CLASS} labels a class are worth",
        HEAD,
        rows,
        f"Probe and fine-tuning: accuracy on the 360 test digits, read once per run, mean and 95% interval over "
        f"{draws} draws of the labels. kNN: validation digits, classified by all labelled training digits.",
    )


def _clear(folder: Path) -> None:
    if not folder.exists():
        return
    if any(folder.iterdir()) and not (folder / MARKER).is_file():
        raise ValueError(f"{folder} holds something else than a demo: choose another folder with --folder")
    shutil.rmtree(folder)


def _ahead(folder: Path, ours: str, other: str, draws: Sequence[int]) -> Difference:
    """Return by how much a way is ahead of its baseline, over the draws and the test images."""
    files = [[folder / name / f"draw_{draw}" / PREDICTIONS_FILE for name in (ours, other)] for draw in draws]
    pairs = [paired_right(*map(read_right, both)) for both in files]
    return paired_runs(torch.stack([one for one, _ in pairs]), torch.stack([one for _, one in pairs]))


def _write_report(
    folder: Path,
    run: Path,
    results: Mapping[str, Any],
    table: Table,
    ahead: tuple[Difference, ...],
    seconds: float,
) -> Path:
    environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    ours, random, scratch, _ = (row.cells for row in table.rows)
    return write_page(
        folder / "report.html",
        title="Masked autoencoding, on 1,797 handwritten digits",
        lead=f"{results['images_seen']:,} images seen without labels, then {LABELS_PER_CLASS} labels a class; "
        f"{seconds:.0f} seconds in all, on {environment['device']}.",
        verdicts=[
            opening(
                ahead[0].word,
                f"with {LABELS_PER_CLASS} labels a class a linear probe on the frozen features reaches {ours[2]}; on the same "
                f"encoder at random weights it reaches {random[2]}, {ahead[0]}.",
            ),
            opening(
                ahead[1].word,
                f"fine-tuned on those labels the network reaches {ours[3]}; trained on them from scratch, {scratch[3]}, "
                f"{ahead[1]}.",
            ),
        ],
        tiles=tiles(results),
        tables=[table],
        pictures=run_pictures(run, Pixels().caption),
        curves=run_curves(run, results),
        command="make demo",
        config=(run / "config.yaml").read_text(encoding="utf-8"),
        environment=json.dumps(environment, indent=2),
    )
