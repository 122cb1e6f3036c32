"""Sums and divisions that round exactly as torchvision's.

With unit weights every gradient should have the framework's very bits. The order of sums does not matter for that, as
the gradient of a sum is a copy. Divisions matter: whether a gradient is divided before or after it is multiplied by a
derivative, and whether by a tensor or a Python number, which CUDA turns into a multiplication by its reciprocal.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _RowSums(torch.autograd.Function):
    """``x.sum(dim=1)``, with a contiguous gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.columns = x.shape[1]
        return x.sum(dim=1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.unsqueeze(1).repeat(1, ctx.columns)


class _DivideValue(torch.autograd.Function):
    """``x / n``, whose gradient is not divided."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, n: int) -> Tensor:
        return x / n

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class _DivideGradient(torch.autograd.Function):
    """``x``, whose gradient is divided by ``n``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, n: int) -> Tensor:
        ctx.n = n
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient / ctx.n, None


def row_sums(x: Tensor) -> Tensor:
    """Return the sum of each row of ``[n, 4]`` losses, with a contiguous gradient.

    On a CPU ``smooth_l1_loss_backward`` takes another path for an expanded gradient than for the scalar that
    torchvision's own sum sends back, and that path rounds differently where beta is not 1.
    """
    return _RowSums.apply(x)  # type: ignore[no-any-return,no-untyped-call]


def divide_value(x: Tensor, n: int) -> Tensor:
    """Return ``x / n``, and leave the gradient's division to `divide_gradient` on the input of the loss.

    Together they are a mean whose gradient is divided last, after the loss's own derivative, as the backward of
    ``binary_cross_entropy_with_logits(reduction="mean")`` does.
    """
    return _DivideValue.apply(x, n)  # type: ignore[no-any-return,no-untyped-call]


def divide_gradient(x: Tensor, n: int) -> Tensor:
    """Return ``x``, whose gradient is divided by `n`: see `divide_value`."""
    return _DivideGradient.apply(x, n)  # type: ignore[no-any-return,no-untyped-call]
