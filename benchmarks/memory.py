"""What a training step keeps for the way back, with and without gradient checkpointing: MB an image, weights not counted.

python benchmarks/memory.py --model vit_base_patch16_224
"""

from __future__ import annotations

import argparse

import torch

import mae
from mae.report.tables import Row, Table, to_markdown


def saved_megabytes(model: mae.MaskedAutoencoder, images: torch.Tensor, plan: mae.MaskPlan) -> float:
    """Return MB that autograd saves in one forward pass, each storage once, parameters left out."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    seen: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(images, plan).loss  # kept, so that no storage is freed and counted again
        total = sum(seen.values()) / 1e6
    del loss
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_base_patch16_224", help="a timm ViT")
    parser.add_argument("--image-size", type=int, default=224, help="side in pixels")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    model = mae.create_autoencoder(arguments.model, arguments.image_size).train()
    images = torch.randn(1, 3, arguments.image_size, arguments.image_size)
    plan = mae.MaskPlan.from_noise(torch.rand(1, model.grid[0] * model.grid[1]), model.grid, 0.75)
    figures = {"no checkpointing": saved_megabytes(model, images, plan)}
    model.encoder.set_grad_checkpointing()
    figures["the encoder's blocks"] = saved_megabytes(model, images, plan)
    model.set_grad_checkpointing()
    figures["the decoder's too (trainer.grad_checkpointing=true)"] = saved_megabytes(model, images, plan)
    whole = figures["no checkpointing"]
    rows = [Row((name, f"{value:.1f}", f"{value / whole:.2f}")) for name, value in figures.items()]
    print(
        to_markdown(
            Table(f"{arguments.model}, saved for the way back", ("computed again", "MB an image", "ratio"), rows)
        )
    )


if __name__ == "__main__":
    main()
