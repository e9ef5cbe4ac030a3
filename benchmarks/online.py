"""What the online probe costs: training steps without it and with it, taking turns in one process.

    python benchmarks/online.py                                      two small models, for a CPU
    python benchmarks/online.py --models base --batch 512 --precision bf16-mixed      on a GPU

A period is the number of steps from one update of the probe to the next; periods with an update and without take turns, so that a
machine that slows down slows both. The share is the median time inside the callback over that of the period's steps. The ratio
is of the medians of whole periods: it sees all that an update slows down besides, and all noise. On a CPU the time is that of
the process, which leaves out what other processes take; OMP_NUM_THREADS=1 keeps idle threads out of it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from types import SimpleNamespace

import torch
from rich.console import Console
from rich.table import Table

from mae.config.composing import compose
from mae.data.loading.batches import Batch
from mae.masking.seeds import seeded_generator
from mae.run.pretrain import prepare
from mae.training.callbacks.online_probe import OnlineProbe

SIZES = {
    "digits": {"image": 16, "patch": 4, "width": 96, "depth": 4, "heads": 4, "decoder": (64, 2, 4), "batch": 128},
    "narrow": {"image": 24, "patch": 4, "width": 192, "depth": 6, "heads": 3, "decoder": (192, 2, 3), "batch": 64},
    "tiny": {"image": 224, "patch": 16, "width": 192, "depth": 12, "heads": 3, "decoder": (192, 4, 3), "batch": 256},
    "base": {"image": 224, "patch": 16, "width": 768, "depth": 12, "heads": 12, "decoder": (512, 8, 16), "batch": 256},
}


def build(size: dict, batch: int, precision: str) -> tuple:
    """Return (module, optimizer, probe, precision plugin, batch) of a run on the digits, blown up to the model's size."""
    decoder = dict(zip(("width", "depth", "heads"), size["decoder"], strict=True))
    values = {
        "data.image_size": size["image"],
        "model.patch_size": size["patch"],
        "batch_size": batch,
        "epochs": 1,
        "trainer.devices": 1,
        "trainer.precision": precision,
        "trainer.progress": "false",
        **{f"model.{key}": size[key] for key in ("width", "depth", "heads")},
        **{f"decoder.{key}": value for key, value in decoder.items()},
    }
    job = prepare(compose("pretrain", [f"{key}={value}" for key, value in values.items()]))
    (probe,) = (callback for callback in job.trainer.callbacks if isinstance(callback, OnlineProbe))
    module = job.module.to(job.trainer.strategy.root_device).train()
    optimizer = job.module.optimization.optimizer(module.model)
    images = next(iter(job.data.train_dataloader())).images.to(module.device)
    return module, optimizer, probe, job.trainer.precision_plugin, Batch(images, images, images)


def measure(name: str, batch: int, pairs: int, precision: str) -> list[str]:
    """Return the cells of a row."""
    module, optimizer, probe, plugin, data = build(SIZES[name], batch, precision)
    trainer = SimpleNamespace(global_step=0, precision_plugin=plugin)
    on_gpu = module.device.type == "cuda"

    def now() -> float:
        if on_gpu:
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    def step() -> None:
        images = (data.images.float() / 255 - module.mean) / module.std
        generator = seeded_generator(module.device, 1, trainer.global_step)
        with plugin.forward_context():
            loss = module.model(images, module.sampler(len(images), module.model.grid, generator)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    probe.on_train_start(trainer, module)
    for _ in range(2):  # the first ones warm up
        probe.on_train_batch_start(trainer, module, data, 0)
        step()
        trainer.global_step += probe.every

    updates: list[float] = []
    periods: dict[bool, list[float]] = {False: [], True: []}
    for number in range(2 * pairs):
        # Without and with, then with and without: what drifts does not favour one of them.
        probing = number % 4 in (1, 2)
        began = now()
        if probing:
            probe.on_train_batch_start(trainer, module, data, 0)
            updates.append(now() - began)
        for _ in range(probe.every):
            step()
        periods[probing].append(now() - began)
        trainer.global_step += probe.every

    without, with_probe, update = (statistics.median(values) for values in (periods[False], periods[True], updates))
    ratios = sorted(b / a for a, b in zip(periods[False], periods[True], strict=True))
    return [
        name,
        str(batch),
        f"{1e3 * without / probe.every:.1f}",
        str(probe.every),
        f"{probe.batch}",
        f"{1e3 * update:.1f}",
        f"{update / without:.1%}",
        f"{with_probe / without:.3f}",
        f"{ratios[0]:.2f} to {ratios[-1]:.2f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=SIZES, default=["digits", "narrow"])
    parser.add_argument("--batch", type=int, help="images a step; the model's own unless given")
    parser.add_argument("--pairs", type=int, nargs="+", default=[12, 3], help="periods of each kind, by model")
    parser.add_argument("--precision", default="auto")
    arguments = parser.parse_args()
    table = Table(title="The online probe")
    heads = ("model", "batch", "step, ms", "steps apart", "images", "update, ms", "share", "ratio", "ratios of pairs")
    for head in heads:
        table.add_column(head, justify="left" if head == "model" else "right")
    for number, name in enumerate(arguments.models):
        pairs = arguments.pairs[min(number, len(arguments.pairs) - 1)]
        table.add_row(*measure(name, arguments.batch or SIZES[name]["batch"], pairs, arguments.precision))
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
