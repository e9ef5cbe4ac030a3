"""What measuring adds to a pretraining: the seconds inside of it over those of the whole run, on runs of several lengths.

    OMP_NUM_THREADS=1 python benchmarks/online.py                      the digits that scikit-learn ships, from seconds to minutes
    OMP_NUM_THREADS=1 python benchmarks/online.py data=image_folder data.root=DIR --epochs 1 4      images of your own

Whatever else is given are overrides of the run. Measured are the encoder before training, on its way and at its end, raw pixels,
kNN, the solved probe and RankMe: reading, decoding and encoding the images, and what is computed on their features. Training is
all other time of fitting, which holds validation and checkpoints. On a CPU the time is that
of the process, which leaves out what other processes take, and with them worker processes that decode: data.num_workers=0 counts
that too.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from mae.config.composing import compose
from mae.evaluation.frozen.solved_probes import ValidationImages
from mae.run.pretrain import prepare
from mae.training.callbacks.measurements import Measurements

QUIET = ("callbacks.pictures=0", "data.num_workers=0", "trainer.devices=1", "trainer.progress=false")


def now(on_gpu: bool) -> float:
    if on_gpu:
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


@contextmanager
def clocks(spent: dict[str, float], on_gpu: bool) -> Iterator[None]:
    """Count the seconds inside the methods of a run, by a name each."""
    watched: list[tuple[type, str, str]] = [
        (Measurements, "_measure", "measuring"),
        (Measurements, "_measure_pixels", "measuring"),
        (Measurements, "_measure_patches", "measuring"),
        (Measurements, "_right", "solving"),
        (ValidationImages, "_extract", "encoding"),
    ]
    originals = [(owner, method, getattr(owner, method)) for owner, method, _ in watched]

    def timed(original: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            began = now(on_gpu)
            try:
                return original(*arguments, **options)
            finally:
                spent[name] += now(on_gpu) - began

        return call

    for (owner, method, original), (_, _, name) in zip(originals, watched, strict=True):
        setattr(owner, method, timed(original, name))
    try:
        yield
    finally:
        for owner, method, original in originals:
            setattr(owner, method, original)


def measure(overrides: list[str], epochs: int) -> list[str]:
    """Return the cells of a row."""
    with tempfile.TemporaryDirectory() as folder:
        job = prepare(compose("pretrain", [*QUIET, f"epochs={epochs}", *overrides, f"run_dir={folder}/run"]))
        on_gpu = job.trainer.strategy.root_device.type == "cuda"
        spent: dict[str, float] = defaultdict(float)
        with clocks(spent, on_gpu):
            began = now(on_gpu)
            job.fit()
            training = now(on_gpu) - began - spent["measuring"]
            job.return_to_device()
            results = job.observers.measurements.results(job.trainer, job.module)
        measurements = job.observers.measurements
    each = measurements.images
    return [
        Path(next((text.partition("=")[2] for text in overrides if text.startswith("data.root=")), "digits")).name,
        f"{job.trainer.global_step * job.setting.config.batch_size:,}",
        f"{1 + max(1, measurements.times)} x ({results['measured_labels']:,}+{results['measured_images']:,})",
        f"{training:.1f}",
        f"{spent['encoding']:.2f}",
        f"{spent['solving']:.2f}",
        f"{spent['measuring']:.2f}",
        f"{spent['measuring'] / training:.1%}" + (" (floor)" if each.bank <= 256 else ""),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="of the run")
    parser.add_argument("--epochs", type=int, nargs="+", default=[2, 20, 190], help="lengths of the runs")
    arguments = parser.parse_intermixed_args()
    table = Table(title="Measuring beside pretraining")
    heads = (
        "data",
        "images trained on",
        "measured on",
        "training, s",
        "reading, encoding, s",
        "kNN, probe, s",
        "all, s",
        "share",
    )
    for head in heads:
        table.add_column(head, justify="left" if head == "data" else "right")
    for epochs in arguments.epochs:
        table.add_row(*measure(arguments.overrides, epochs))
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
