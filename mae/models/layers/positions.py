"""Position tables: sine-cosine in two dimensions, and resampling to another grid."""

from __future__ import annotations

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor


def sincos_positions(grid: tuple[int, int], width: int, prefix: int = 0) -> Tensor:
    """Return the fixed 2-D table (1, prefix + Gh*Gw, D) in float32.

    The first half of the channels encodes the column, the second half the row; each half holds the sines of its D/4
    frequencies, then their cosines. This is the order of the released MAE weights. Prefix (class and register) tokens
    have position zero.

    Raises:
        ValueError: The width is not a multiple of 4.
    """
    if width % 4:
        raise ValueError(f"sine-cosine positions need a width that 4 divides, not {width}: choose {width // 4 * 4 + 4}")
    # float64 inside: float32 angles lose the low digits of cosines for grids of a hundred patches.
    frequencies = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    rows, columns = torch.meshgrid(*(torch.arange(side, dtype=torch.float64) for side in grid), indexing="ij")
    halves = []
    for coordinate in (columns, rows):
        angles = coordinate.reshape(-1, 1) * frequencies
        halves += [angles.sin(), angles.cos()]
    table = torch.cat(halves, dim=1)
    return torch.cat([table.new_zeros(prefix, width), table]).unsqueeze(0).float()


def resample_positions(table: Tensor, old: tuple[int, int], new: tuple[int, int], prefix: int) -> Tensor:
    """Resample a table (1, prefix + Gh*Gw, D) from one grid to another, bicubic with antialiasing; prefix rows stay as they are.

    The old grid is an argument and never guessed: 2x8 and 4x4 have tables of one length. Same grid: the identity.

    Raises:
        ValueError: The table does not belong to the old grid.
    """
    rows = prefix + old[0] * old[1]
    if table.shape[1] != rows:
        raise ValueError(
            f"a position table of {table.shape[1]} rows is not one of {prefix} + {old[0]}x{old[1]} = {rows}"
        )
    resampled: Tensor = resample_abs_pos_embed(table, list(new), list(old), prefix)
    return resampled
