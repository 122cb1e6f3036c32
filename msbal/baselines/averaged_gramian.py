"""Strategies that decide by the levels' gradients once an interval, not in each step."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from msbal.engine.statistics import Array, IntervalStatistics
from msbal.engine.strategies.base import Decision, State, Strategy, refuse_unless, rescaled

Mask: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True)
class GramianStrategy(Strategy):
    """Weighs by the Gramian of the levels' gradients, averaged over the intervals so far.

    The gradients of a single batch say little: one without a large object leaves the coarsest level next to none. So
    each interval's Gramian, divided by its mean diagonal entry, enters an exponential moving average.

    The weights sum to K. They stay as they are in an interval without a gradient. A level without positives in the
    interval has a gradient next to none, to which nothing should be balanced: it has the weight 1, as has one that has
    had no gradient so far, and the others sum to their number.

    Attributes:
        smoothing: how much of the average is kept in each interval; 0 takes each interval by itself.
    """

    needs_gradients: ClassVar[bool] = True
    smoothing: float = 0.8

    def __post_init__(self) -> None:
        refuse_unless(0 <= self.smoothing < 1, "smoothing", "at least 0 and below 1", self.smoothing)

    @abstractmethod
    def weigh_gramian(
        self,
        gramian: Array,
        kept: Mask,
        statistics: IntervalStatistics,
        state: State,
        rng: np.random.Generator,
    ) -> Decision:
        """Return weights up to a factor, and what else to remember.

        Args:
            gramian: ``[n, n]``, n at least 2, its diagonal above 0.
            kept: ``[K]`` mask of the n levels in it.
        """

    def decide(self, statistics: IntervalStatistics, state: State, rng: np.random.Generator) -> Decision:
        found = statistics.gradients
        if found is None or not found.any():
            return statistics.weights, state
        gramian = found / np.diagonal(found).mean()
        if "gramian" in state:
            gramian = self.smoothing * np.array(state["gramian"]) + (1 - self.smoothing) * gramian
        state = {**state, "gramian": gramian.tolist()} if self.smoothing else state
        weights, kept = np.ones(len(gramian)), np.diagonal(gramian) > 0
        if statistics.positives is not None:
            kept &= statistics.positives > 0
        if kept.sum() >= 2:
            raw, own = self.weigh_gramian(gramian[np.ix_(kept, kept)], kept, statistics, state, rng)
            weights[kept], state = rescaled(raw), {**state, **own}
        return weights, state
