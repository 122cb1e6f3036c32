"""The statistics of one interval: equations 2, 3 and 4.

Shapes: A iterations of the interval (alpha), T terms, K levels, R ranks. NumPy, float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array: TypeAlias = NDArray[np.float64]

EPSILON = 1e-5
"""Eq 4's epsilon."""


@dataclass(frozen=True)
class IntervalStatistics:
    """What a strategy may look at when an interval ends.

    Attributes:
        interval, count: t, counted from 1; its iterations with only finite losses, on all ranks.
        loss: ``[K]`` eq 2, the sum over the interval of each level's loss over all terms.
        loss_by_term: ``[T, K]``.
        variance: ``[K]`` eq 3.
        variance_reduction: ``[K]`` eq 4.
        previous_loss: ``[K]`` that of interval t - 1; zeros at t = 1.
        positives: ``[K]`` positive samples over the interval and all ranks; None where unknown.
        weights: ``[K]`` those in force during the interval.
        gradients: ``[K, K]`` Gramian of the levels' unweighted gradients, on the parameters that levels share, averaged
            over the interval's measurements; None where nothing was measured in it.
    """

    interval: int
    count: int
    loss: Array
    loss_by_term: Array
    variance: Array
    variance_reduction: Array
    previous_loss: Array
    positives: Array | None
    weights: Array
    gradients: Array | None = None

    @property
    def usable(self) -> bool:
        """Whether to decide: fewer than two iterations have no variance, and a sum or a square can overflow."""
        return bool(np.isfinite(self.loss).all() and np.isfinite(self.variance).all())


def interval_statistics(
    interval: int,
    losses: Array,
    positives: Array | None,
    weights: ArrayLike,
    previous_loss: ArrayLike,
    previous_variance: ArrayLike,
    epsilon: float = EPSILON,
    gradients: Array | None = None,
) -> IntervalStatistics:
    """Compute equations 2 to 4 from ``[R, A, T, K]`` unweighted losses, averaged over ranks.

    An iteration with any loss that is not finite, on any rank, is left out for all levels, so that levels stay
    comparable; the sums are then scaled up to the full interval, so that intervals stay comparable too. With no
    iteration left, loss, variance and reduction are NaN; with one, the variance is.
    """
    alpha = losses.shape[1]
    kept = np.isfinite(losses).all(axis=(0, 2, 3))
    count = int(kept.sum())
    with np.errstate(all="ignore"):  # what overflows decides nothing, see `IntervalStatistics.usable`
        rows = losses[:, kept].mean(axis=0)  # [count, T, K]
        loss_by_term = rows.sum(axis=0) * (alpha / count if count else np.nan)
        variance, before = unbiased_variance(rows.sum(axis=1)), np.asarray(previous_variance)
        return IntervalStatistics(
            interval=interval,
            count=count,
            loss=loss_by_term.sum(axis=0),  # eq 2
            loss_by_term=loss_by_term,
            variance=variance,  # eq 3
            variance_reduction=(before - variance) / (before + epsilon),  # eq 4
            previous_loss=np.asarray(previous_loss),
            positives=positives,
            weights=np.asarray(weights),
            gradients=gradients,
        )


def unbiased_variance(losses: Array) -> Array:
    """Return eq 3 of ``[A, K]`` losses, ``[K]``; NaN for fewer than two iterations."""
    if len(losses) < 2:
        return np.full(losses.shape[1], np.nan)
    # Relative to the first iteration: the rounded mean of equal losses need not equal them, and for huge losses that
    # difference alone would be a huge variance.
    return np.asarray(np.var(losses - losses[0], axis=0, ddof=1))
