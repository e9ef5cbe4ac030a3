"""A masked autoencoder in plain loops, written from the paper (He et al. 2021, arXiv 2111.06377). Slow on purpose.

It shares nothing with the package but the names of the weights. One image at a time, one token at a time, float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Sizes:
    """What the weights do not tell."""

    grid: tuple[int, int]
    patch: int
    heads: int
    decoder_heads: int
    ratio: float
    normalize_pixels: bool
    fixed_positions: bool


def autoencoder_loss(state: Weights, images: Tensor, noise: Tensor, sizes: Sizes) -> tuple[float, list[list[Tensor]]]:
    """Return the loss of images (B, C, H, W) under noise (B, L), and each image's hidden patches in order of noise."""
    errors, predictions = [], []
    for image, ranks in zip(images.double(), noise.tolist(), strict=True):
        order = sorted(range(len(ranks)), key=lambda patch, ranks=ranks: ranks[patch])
        visible = math.floor(len(ranks) * (1 - sizes.ratio) + 1e-6)
        kept, hidden = order[:visible], order[visible:]
        patches = cut(image, sizes.grid, sizes.patch)
        predicted = decode(state, encode(state, patches, kept, sizes), kept, hidden, sizes)
        for patch, guess in zip(hidden, predicted, strict=True):
            truth = standardise(patches[patch]) if sizes.normalize_pixels else patches[patch]
            errors.append(sum((guess[i].item() - truth[i].item()) ** 2 for i in range(len(truth))) / len(truth))
        predictions.append(predicted)
    return sum(errors) / len(errors), predictions


def cut(image: Tensor, grid: tuple[int, int], P: int) -> list[Tensor]:
    """Patches from left to right and top to bottom, the values of each by row, column and channel."""
    patches = []
    for grid_row in range(grid[0]):
        for grid_column in range(grid[1]):
            values = []
            for row in range(P):
                for column in range(P):
                    values += image[:, grid_row * P + row, grid_column * P + column].tolist()
            patches.append(torch.tensor(values, dtype=torch.float64))
    return patches


def standardise(patch: Tensor) -> Tensor:
    """Mean 0 and variance 1 within the patch; the variance divides by n - 1 and gets 1e-6 inside the root."""
    values = patch.tolist()
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return torch.tensor([(value - mean) / math.sqrt(variance + 1e-6) for value in values], dtype=torch.float64)


def position(patch: int, width: int, grid: tuple[int, int]) -> Tensor:
    """Sine and cosine of the column, then of the row; the table is stored in float32."""
    row, column = divmod(patch, grid[1])
    values = []
    for coordinate in (column, row):
        for wave in (math.sin, math.cos):
            values += [wave(coordinate / 10000 ** (i / (width / 4))) for i in range(width // 4)]
    return torch.tensor(values, dtype=torch.float32).double()


def encode(state: Weights, patches: list[Tensor], kept: list[int], sizes: Sizes) -> list[Tensor]:
    """Class and register tokens, then the kept patches, through the encoder's blocks."""
    vit = "encoder.vit."
    names = [vit + name for name in ("cls_token", "reg_token") if vit + name in state]
    prefix = [token for name in names for token in state[name][0]]
    kernel, bias = state[vit + "patch_embed.proj.weight"], state[vit + "patch_embed.proj.bias"]
    # The kernel of a convolution is (D, C, P, P); reading it as an image gives the order of a patch.
    rows = [cut(channel, (1, 1), sizes.patch)[0] for channel in kernel]
    table = state[vit + "pos_embed"][0]
    positioned = len(table) - len(patches)
    if not sizes.fixed_positions:
        prefix = [token + table[i] if i < positioned else token for i, token in enumerate(prefix)]
    tokens = prefix
    for patch in kept:
        place = position(patch, len(bias), sizes.grid) if sizes.fixed_positions else table[positioned + patch]
        tokens.append(torch.stack([row @ patches[patch] for row in rows]) + bias + place)
    tokens = transform(state, vit + "blocks.", tokens, sizes.heads)
    return [layer_norm(state, vit + "norm", token) for token in tokens]


def decode(state: Weights, latent: list[Tensor], kept: list[int], hidden: list[int], sizes: Sizes) -> list[Tensor]:
    """Mask tokens in the place of hidden patches, every patch at its position, prefix tokens at none."""
    embedded = [linear(state, "decoder.embed", token) for token in latent]
    first = len(latent) - len(kept)
    tokens = embedded[:first]
    for patch in range(sizes.grid[0] * sizes.grid[1]):
        token = embedded[first + kept.index(patch)] if patch in kept else state["decoder.mask_token"][0, 0]
        tokens.append(token + position(patch, len(token), sizes.grid))
    tokens = transform(state, "decoder.blocks.", tokens, sizes.decoder_heads)
    normed = [layer_norm(state, "decoder.norm", tokens[first + patch]) for patch in hidden]
    return [linear(state, "decoder.predict", token) for token in normed]


def transform(state: Weights, prefix: str, tokens: list[Tensor], heads: int) -> list[Tensor]:
    """Pre-norm blocks: attention, then a two-layer perceptron, each added to what it read."""
    for block in range(sum(key.startswith(prefix) and key.endswith(".norm1.weight") for key in state)):
        name = f"{prefix}{block}."
        attended = attend(state, name + "attn.", [layer_norm(state, name + "norm1", token) for token in tokens], heads)
        tokens = [token + change for token, change in zip(tokens, attended, strict=True)]
        for i, token in enumerate(tokens):
            inner = linear(state, name + "mlp.fc1", layer_norm(state, name + "norm2", token)).tolist()
            inner = [0.5 * x * (1 + math.erf(x / math.sqrt(2))) for x in inner]
            tokens[i] = token + linear(state, name + "mlp.fc2", torch.tensor(inner, dtype=torch.float64))
    return tokens


def attend(state: Weights, name: str, tokens: list[Tensor], heads: int) -> list[Tensor]:
    """Softmax attention, head by head and query by query."""
    D, size = len(tokens[0]), len(tokens[0]) // heads
    joint = [linear(state, name + "qkv", token) for token in tokens]
    mixed = []
    for query in joint:
        pieces = []
        for head in range(heads):
            at = slice(head * size, (head + 1) * size)
            scores = [(query[:D][at] @ key[D : 2 * D][at]).item() / math.sqrt(size) for key in joint]
            weights = [math.exp(score - max(scores)) for score in scores]
            pieces.append(sum(w / sum(weights) * other[2 * D :][at] for w, other in zip(weights, joint, strict=True)))
        mixed.append(linear(state, name + "proj", torch.cat(pieces)))
    return mixed


def layer_norm(state: Weights, name: str, token: Tensor) -> Tensor:
    """Mean 0 and variance 1 (here dividing by n) over the channels, then scale and shift."""
    centred = token - token.sum() / len(token)
    deviation = math.sqrt((centred @ centred).item() / len(token) + 1e-6)
    return centred / deviation * state[name + ".weight"] + state[name + ".bias"]


def linear(state: Weights, name: str, token: Tensor) -> Tensor:
    """A matrix product, output by output."""
    return torch.stack([row @ token for row in state[name + ".weight"]]) + state[name + ".bias"]
