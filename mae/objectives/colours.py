"""The target of masked patch prediction: colours in 3 bits a channel (Dosovitskiy et al. 2020, appendix B.1.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mae.objectives.masked_mse import mean_of_valid

LEVELS = 8
COLOURS = LEVELS**3


def colour_labels(patches: Tensor, cells: int = 1) -> Tensor:
    """Return the mean colours of patches, as classes: (B, N, P*P*3) in [0, 1] to (B, N, cells*cells) int64 in 0 to 511.

    A channel's mean has 8 levels, q = clamp(floor(8 * mean), 0, 7); the label is 64 r + 8 g + b.

    Args:
        patches: Laid out (row, column, channel).
        cells: Parts of a patch along each side; 1 is its mean colour, 4 the paper's variant of 4x4 colours.

    Raises:
        ValueError: The patches are not of three channels, or cannot be cut into these cells.
    """
    B, N, values = patches.shape
    P = round((values / 3) ** 0.5)
    if values != P * P * 3 or P % cells:
        raise ValueError(f"patches of {values} values cannot be cut into {cells}x{cells} colours of three channels")
    parts = patches.reshape(B, N, cells, P // cells, cells, P // cells, 3)
    levels = (parts.mean(dim=(3, 5)) * LEVELS).floor().clamp(0, LEVELS - 1).long().flatten(2, 3)
    red, green, blue = levels.unbind(-1)
    return red * LEVELS**2 + green * LEVELS + blue


def colour_patches(labels: Tensor, patch_size: int) -> Tensor:
    """Return patches (B, N, P*P*3) in [0, 1] that show colour labels (B, N, cells*cells), each by the middle of its bin."""
    B, N, count = labels.shape
    cells = round(count**0.5)
    side = patch_size // cells
    levels = torch.stack([labels // LEVELS**2, labels // LEVELS % LEVELS, labels % LEVELS], dim=-1)
    parts = ((levels + 0.5) / LEVELS).reshape(B, N, cells, 1, cells, 1, 3)
    return parts.expand(-1, -1, -1, side, -1, side, -1).reshape(B, N, patch_size**2 * 3)


def whole_cells(valid: Tensor, cells: int) -> Tensor:
    """Return which cells of patches are valid in every value: bool (B, N, P*P*3) to (B, N, cells*cells)."""
    B, N, values = valid.shape
    P = round((values / 3) ** 0.5)
    return valid.reshape(B, N, cells, P // cells, cells, P // cells, 3).all(6).all(5).all(3).flatten(2)


def colour_loss(logits: Tensor, labels: Tensor, valid: Tensor | None = None) -> Tensor:
    """Cross-entropy of logits (B, M, cells*cells, 512) and labels (B, M, cells*cells), in float32 also under autocast.

    Of labels that are valid alone, where that is given: each image's own mean, see ``masked_mse``.
    """
    with torch.autocast(logits.device.type, enabled=False):
        entropy = F.cross_entropy(logits.float().flatten(0, 2), labels.flatten(), reduction="none")
        return entropy.mean() if valid is None else mean_of_valid(entropy.view(labels.shape), valid)
