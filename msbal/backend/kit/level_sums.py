"""Sums by level over the rows of a batch, deterministic on CUDA too: nothing is added atomically.

Shapes: R anchors (or points) of an image over all levels, level-major; P rows (samples) of a batch; K levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def spread(rows: Tensor, where: tuple[Tensor, ...], shape: Sequence[int]) -> Tensor:
    """Put ``[P]`` rows back in their places, zero elsewhere: `shape`, in float32 or better.

    Args:
        where: the indices ``[P]`` of each dimension; no two places are the same.
    """
    if rows.dtype in (torch.float16, torch.bfloat16):
        rows = rows.float()
    return rows.new_zeros(shape).index_put(where, rows)


def sum_levels(dense: Tensor, sizes: Sequence[int]) -> Tensor:
    """``[..., N, R]`` to ``[..., K]``: the sum over the N images and over each level's part of R.

    Args:
        sizes: K counts that add up to R.
    """
    return torch.stack([part.sum(dim=(-2, -1)) for part in torch.split(dense, list(sizes), dim=-1)], dim=-1)


def sum_by_level(rows: Tensor, level: Tensor, levels: int) -> Tensor:
    """``[..., P]`` rows of mixed levels to ``[..., K]``.

    Args:
        level: ``[P]``, the level of each row, 0 the finest.
    """
    own = level == torch.arange(levels, device=level.device).unsqueeze(1)
    return torch.where(own, rows.unsqueeze(-2), 0.0).sum(dim=-1)
