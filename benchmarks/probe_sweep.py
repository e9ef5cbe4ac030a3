"""Linear probes side by side on features extracted once, against one run for each: same winner, same accuracy, how much time?

python benchmarks/probe_sweep.py --checkpoint RUN       digits; without a checkpoint the encoder is random

Both ways train the same heads on the same images in the same order, without crops and flips. The separate runs encode every
image in every epoch, as any probe with augmentation must.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from mae.config.composing import compose
from mae.downstream.prepare import prepare

QUIET = ("trainer.progress=false", "trainer.devices=1", "baselines=false", "data.min_scale=1", "data.flip=false")


def run(folder: Path, *overrides: str) -> tuple[dict[str, Any], float]:
    """Return a run's results, and the seconds that it took."""
    began = time.perf_counter()
    results = prepare(compose("finetune", [*QUIET, f"run_dir={folder}", *overrides])).run()
    return dict(results), time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--checkpoint", default="null")
    parser.add_argument("--factors", default="0.3,1,3", help="learning rates, as multiples of the chosen one")
    parser.add_argument("overrides", nargs="*", help="further overrides of every run, such as epochs=30")
    options = parser.parse_args()
    common = (f"checkpoint={options.checkpoint}", *options.overrides)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sweep = ("protocol.sweep=true", f"protocol.sweep_factors=[{options.factors}]")
        together, seconds = run(folder / "sweep", *common, *sweep)
        with (folder / "sweep" / "sweep.csv").open(newline="") as file:
            candidates = list(csv.DictReader(file))
        separate = []
        for number, chosen in enumerate(track(candidates, description="separate runs")):
            wanted = (f"protocol.pool={chosen['pool']}", f"protocol.batch_norm={chosen['batch_norm'].lower()}")
            separate.append(run(folder / str(number), *common, *wanted, f"optim.base_lr={chosen['base_lr']}"))

    table = Table(title="validation accuracy of the best epoch", title_justify="left")
    for head in ("pooling", "BatchNorm", "base_lr", "in the sweep", "in a run of its own"):
        table.add_column(head, justify="right")
    for chosen, (results, _) in zip(candidates, separate, strict=True):
        figures = (f"{float(chosen['val_top1']):.2%}", f"{results['val_top1']:.2%}")
        table.add_row(chosen["pool"], chosen["batch_norm"], chosen["base_lr"], *figures)
    console = Console()
    console.print(table)
    pairs = zip(candidates, separate, strict=True)
    apart = max(abs(float(chosen["val_top1"]) - results["val_top1"]) for chosen, (results, _) in pairs)
    best = max(range(len(separate)), key=lambda number: separate[number][0]["val_top1"])
    winner = {key: str(together[f"sweep_{key}"]) for key in ("pool", "batch_norm", "base_lr")}
    same = all(candidates[best][key] == value for key, value in winner.items())
    total = sum(taken for _, taken in separate)
    console.print(
        f"winner {'the same' if same else 'ANOTHER'}: {' '.join(f'{key}={value}' for key, value in winner.items())}, "
        f"test {together['test_top1']:.2%} in the sweep, {separate[best][0]['test_top1']:.2%} in a run of its own; "
        f"largest difference {100 * apart:.2f} points"
    )
    console.print(f"{len(candidates)} runs {total:.1f} s, the sweep {seconds:.1f} s: {seconds / total:.3f} of the time")


if __name__ == "__main__":
    main()
