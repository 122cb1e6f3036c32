"""The statistics of one interval: equations 2, 3 and 4.

Shapes: A iterations of the interval (alpha), T terms, K levels, R ranks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from msbal.engine.numbers import Numbers

EPSILON = 1e-5
"""Eq 4's epsilon."""


@dataclass(frozen=True)
class IntervalStatistics:
    """What a strategy may look at when an interval ends. All tensors are float64 on one device.

    For a strategy that takes them, `Numbers` stand in the ``[K]`` tensors' stead, and Python's in the scalars'.

    Attributes:
        interval: int64 scalar t, counted from 1.
        count: scalar, the iterations that entered (all their losses finite, on all ranks).
        loss: ``[K]`` eq 2, the sum over the interval of each level's loss over all terms.
        loss_by_term: ``[T, K]``.
        variance: ``[K]`` eq 3.
        variance_reduction: ``[K]`` eq 4.
        previous_loss: ``[K]`` that of interval t - 1; zeros at t = 1.
        positives: ``[K]`` positive samples over the interval and all ranks; zeros where unknown.
        weights: ``[K]`` those that held during the interval.
    """

    interval: Tensor
    count: Tensor
    loss: Tensor
    loss_by_term: Tensor
    variance: Tensor
    variance_reduction: Tensor
    previous_loss: Tensor
    positives: Tensor
    weights: Tensor


def interval_moments(losses: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Equations 2 and 3 over the losses that are finite.

    An iteration in which any loss of any rank is not finite is left out for all levels, so that the
    levels stay comparable; the sums are then scaled up to the full interval, so that intervals stay
    comparable too. Where all are finite the sums are plain.

    Args:
        losses: ``[R, A, T, K]`` float64 unweighted losses. Ranks are averaged.

    Returns:
        count (scalar), loss ``[K]``, loss by term ``[T, K]``, variance ``[K]``: unbiased, from centred
        differences. The losses are NaN where count is 0, the variance where it is 1.
    """
    alpha = losses.shape[1]
    kept = ((losses * 0.0).sum(dim=(0, 2, 3)) == 0).to(losses.dtype)  # [A]: times 0, only what is finite is 0
    count = kept.sum()
    left_out = (kept == 0).view(-1, 1)
    mean_over_ranks, per_level = _means(losses.masked_fill(left_out.unsqueeze(2), 0.0))
    fill = alpha / count
    loss_by_term, loss = mean_over_ranks.sum(dim=0) * fill, per_level.sum(dim=0) * fill
    # Seen from the first that is kept: a mean of equal losses need not be equal to them, and of huge ones that
    # difference is a huge variance. (Welford's algorithm, `Tensor.var`, has no such mean, but no mask either.)
    first = per_level.index_select(0, kept.argmax(dim=0, keepdim=True))
    shifted = (per_level - first).masked_fill(left_out, 0.0)
    centred = (shifted - shifted.sum(dim=0) / count).masked_fill(left_out, 0.0)
    variance = centred.square().sum(dim=0) / (count - 1)
    return count, loss, loss_by_term, variance


def host_moments(losses: Tensor) -> tuple[float, Numbers, list[Numbers], Numbers]:
    """`interval_moments` of losses in the host's memory, as numbers."""
    mean_over_ranks, per_level = _means(losses)
    by_term = mean_over_ranks.sum(dim=0).tolist()
    if all(math.isfinite(total) for row in by_term for total in row):  # as nearly always: nothing is left out
        loss = by_term[0] if len(by_term) == 1 else list(map(sum, zip(*by_term, strict=True)))
        variance = per_level.var(dim=0).tolist()  # by Welford's algorithm
        return losses.shape[1], Numbers(loss), list(map(Numbers, by_term)), Numbers(variance)
    count, total, parts, spread = interval_moments(losses)
    return count.item(), Numbers(total.tolist()), list(map(Numbers, parts.tolist())), Numbers(spread.tolist())


def _means(losses: Tensor) -> tuple[Tensor, Tensor]:
    """Over ranks, ``[A, T, K]``, and summed over terms, ``[A, K]``; one rank or term costs no kernel."""
    mean_over_ranks = losses.mean(dim=0) if len(losses) > 1 else losses.squeeze(0)
    return mean_over_ranks, mean_over_ranks.sum(dim=1) if losses.shape[2] > 1 else mean_over_ranks.squeeze(1)


def variance_reduction(previous: Tensor, current: Tensor, epsilon: float = EPSILON) -> Tensor:
    """Eq 4: the rate ``[K]`` at which the variance fell, at most 1."""
    return (previous - current) / (previous + epsilon)
