"""Sums per level, and divisions in the framework's own order of rounding.

With unit weights every gradient should have the framework's very bits. Sums do not matter for that (the
gradient of a sum is a copy), divisions do: whether a gradient is divided before or after it is multiplied
by a derivative, and by a Python number (which CUDA turns into a multiplication by its reciprocal) or by a
tensor.

Shapes: T terms, B images, R anchors of an image (all levels, level-major), K levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def spread(rows: Tensor, where: Tensor, size: int) -> Tensor:
    """Put the values of some anchors back in their places, zero elsewhere.

    Args:
        rows: ``[n]``.
        where: ``[n]`` different indices below `size`.

    Returns:
        ``[size]``, float32 or better.
    """
    if rows.dtype in (torch.float16, torch.bfloat16):
        rows = rows.float()
    return rows.new_zeros(size).index_put((where,), rows)


def level_sums(rows: Tensor, sizes: Sequence[int]) -> Tensor:
    """Sum over images and over the anchors of each level.

    Args:
        rows: ``[T, B, R]``.
        sizes: K counts that add up to R.

    Returns:
        ``[T, K]``.
    """
    return torch.stack([level.sum(dim=(1, 2)) for level in torch.split(rows, list(sizes), dim=2)], dim=1)


class _RowSums(torch.autograd.Function):
    """``x.sum(dim=1)`` with a contiguous gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.columns = x.shape[1]
        return x.sum(dim=1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.unsqueeze(1).repeat(1, ctx.columns)


class _DivideValue(torch.autograd.Function):
    """``x / n`` whose gradient is not divided."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, n: int) -> Tensor:
        return x / n

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class _DivideGradient(torch.autograd.Function):
    """``x`` whose gradient is divided by ``n``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, n: int) -> Tensor:
        ctx.n = n
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient / ctx.n, None


def row_sums(x: Tensor) -> Tensor:
    """The sum of each row of ``[n, 4]`` losses, with a contiguous gradient.

    An expanded gradient takes another path through ``smooth_l1_loss_backward`` on CPU than the scalar that
    torchvision's own sum sends back, and that path rounds otherwise where beta is not 1.
    """
    return _RowSums.apply(x)  # type: ignore[no-any-return,no-untyped-call]


def divide_value(x: Tensor, n: int) -> Tensor:
    """``x / n``; the gradient's division is left to `divide_gradient` on the input of the loss.

    Together they are a mean whose gradient is divided last, after the loss's own derivative, as the
    backward of ``binary_cross_entropy_with_logits(reduction="mean")`` does.
    """
    return _DivideValue.apply(x, n)  # type: ignore[no-any-return,no-untyped-call]


def divide_gradient(x: Tensor, n: int) -> Tensor:
    """``x``, whose gradient is divided by `n`: see `divide_value`."""
    return _DivideGradient.apply(x, n)  # type: ignore[no-any-return,no-untyped-call]
