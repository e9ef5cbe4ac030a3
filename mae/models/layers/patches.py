"""Images to patches and back."""

from __future__ import annotations

from torch import Tensor


def as_pair(size: int | tuple[int, int] | list[int]) -> tuple[int, int]:
    """Return (H, W) for a side or a pair of sides in pixels."""
    if isinstance(size, int):
        return size, size
    height, width = size
    return int(height), int(width)


def patch_grid(image_size: tuple[int, int], patch_size: int) -> tuple[int, int]:
    """Return (Gh, Gw), the number of patches along each side.

    Raises:
        ValueError: The patch does not divide the image.
    """
    height, width = image_size
    if height % patch_size or width % patch_size or height < 1 or width < 1:
        fits = tuple(max(1, round(side / patch_size)) * patch_size for side in image_size)
        raise ValueError(
            f"image_size {height}x{width} is not divisible by the patch size {patch_size}: "
            f"{fits[0]}x{fits[1]} would be, or another patch size"
        )
    return height // patch_size, width // patch_size


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """Cut images into patch vectors: (B, C, H, W) to (B, L, P*P*C), laid out (row, column, channel).

    The layout is the one of the released MAE weights.
    """
    B, C, H, W = images.shape
    P = patch_size
    Gh, Gw = patch_grid((H, W), P)
    return images.reshape(B, C, Gh, P, Gw, P).permute(0, 2, 4, 3, 5, 1).reshape(B, Gh * Gw, P * P * C)


def unpatchify(patches: Tensor, grid: tuple[int, int], patch_size: int) -> Tensor:
    """Put patch vectors back together: (B, L, P*P*C) to (B, C, H, W), the inverse of patchify."""
    B, L, values = patches.shape
    P, (Gh, Gw) = patch_size, grid
    if Gh * Gw != L:
        raise ValueError(f"{L} patches do not fill a {Gh}x{Gw} grid")
    C = values // (P * P)
    return patches.reshape(B, Gh, Gw, P, P, C).permute(0, 5, 1, 3, 2, 4).reshape(B, C, Gh * P, Gw * P)


def patch_shares(valid: Tensor, patch_size: int) -> Tensor:
    """Return the share of each patch's pixels that are there: bool (B, H, W) to (B, L) in [0, 1]."""
    return patchify(valid.unsqueeze(1).float(), patch_size).mean(dim=-1)
