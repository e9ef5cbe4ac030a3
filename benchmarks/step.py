"""Time of one pretraining step, beside transformers' ViTMAEForPreTraining: same sizes, same batch, one process.

    python benchmarks/step.py                                  a small model, for a CPU
    python benchmarks/step.py --model base --batch 256 --bf16  on a GPU

Both models take turns, so that a machine that slows down slows both; the ratio is of the medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from transformers import ViTMAEConfig, ViTMAEForPreTraining

import mae

SIZES = {
    "digits": {"image": 16, "patch": 4, "width": 96, "depth": 4, "heads": 4, "decoder": (64, 2, 4)},
    "small_32": {"image": 32, "patch": 4, "width": 192, "depth": 12, "heads": 3, "decoder": (192, 4, 3)},
    "tiny": {"image": 224, "patch": 16, "width": 192, "depth": 12, "heads": 3, "decoder": (192, 4, 3)},
    "base": {"image": 224, "patch": 16, "width": 768, "depth": 12, "heads": 12, "decoder": (512, 8, 16)},
    "large": {"image": 224, "patch": 16, "width": 1024, "depth": 24, "heads": 16, "decoder": (512, 8, 16)},
}


def build(size: dict) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Return (ours, theirs), of equal shape."""
    width, depth, heads = size["decoder"]
    ours = mae.create_autoencoder(
        "vit_tiny_patch16_224",
        size["image"],
        patch_size=size["patch"],
        width=size["width"],
        depth=size["depth"],
        heads=size["heads"],
        decoder_width=width,
        decoder_depth=depth,
        decoder_heads=heads,
    )
    theirs = ViTMAEForPreTraining(
        ViTMAEConfig(
            image_size=size["image"],
            patch_size=size["patch"],
            hidden_size=size["width"],
            num_hidden_layers=size["depth"],
            num_attention_heads=size["heads"],
            intermediate_size=4 * size["width"],
            decoder_hidden_size=width,
            decoder_num_hidden_layers=depth,
            decoder_num_attention_heads=heads,
            decoder_intermediate_size=4 * width,
            norm_pix_loss=True,
        )
    )
    return ours, theirs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=SIZES, default="small_32")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--bf16", action="store_true")
    arguments = parser.parse_args()
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    size = SIZES[arguments.model]
    ours, theirs = (model.to(device).train() for model in build(size))
    images = torch.randn(arguments.batch, 3, size["image"], size["image"], device=device)
    patches = ours.grid[0] * ours.grid[1]

    def our_loss() -> torch.Tensor:
        noise = torch.rand(len(images), patches, device=device)
        return ours(images, mae.MaskPlan.from_noise(noise, ours.grid, 0.75)).loss

    ways: dict[str, tuple[torch.nn.Module, Callable[[], torch.Tensor]]] = {
        "this project": (ours, our_loss),
        "transformers": (theirs, lambda: theirs(images).loss),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    memory: dict[str, float] = {}
    for repeat in range(arguments.repeats + 2):
        for name, (model, loss) in ways.items():
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
                torch.cuda.synchronize()
            began = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=arguments.bf16):
                value = loss()
            value.backward()
            if device.type == "cuda":
                torch.cuda.synchronize()
                memory[name] = torch.cuda.max_memory_allocated() / 2**30
            model.zero_grad(set_to_none=True)
            if repeat >= 2:  # the first two warm up
                times[name].append(time.perf_counter() - began)

    peer = statistics.median(times["transformers"])
    table = Table(title=f"{arguments.model}, batch {arguments.batch}, forward and backward, {device}")
    for head in ("", "median ms", "spread ms", "images/s", "speed, ratio", "peak GiB"):
        table.add_column(head, justify="left" if not head else "right")
    for name, values in times.items():
        median = statistics.median(values)
        spread = f"{1e3 * min(values):.0f} to {1e3 * max(values):.0f}"
        peak = f"{memory[name]:.2f}" if name in memory else ""
        table.add_row(
            name, f"{1e3 * median:.1f}", spread, f"{arguments.batch / median:.0f}", f"{peer / median:.2f}", peak
        )
    Console().print(table)


if __name__ == "__main__":
    main()
