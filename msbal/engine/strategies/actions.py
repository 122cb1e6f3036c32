"""The paper's four actions, a0 to a3, and eq 5, by which the first three amplify the levels that they select."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from msbal.engine.statistics import Array, IntervalStatistics
from msbal.engine.strategies.base import Decision, State, Strategy, refuse_unless
from msbal.engine.strategies.registry import register


def select_top(score: Array, top_k: int) -> Array:
    """Return a ``[K]`` mask of the `top_k` levels with the highest score; of equals the finer level wins."""
    selected = np.zeros(len(score), dtype=bool)
    selected[np.argsort(-score, kind="stable")[:top_k]] = True
    return selected


def shares(loss: Array) -> Array:
    """Return each level's share of the total loss, ``[K]``, kept within [0, 1]; 0 of a total of 0 or less."""
    # Divided by the largest first: a sum of losses near the end of float64 would overflow.
    scaled = loss / (np.abs(loss).max() or 1.0)
    total = scaled.sum()
    return np.clip(scaled / total, 0.0, 1.0) if total > 0 else np.zeros_like(loss)


def amplify(selected: Array, loss: Array, amplification: float) -> Array:
    """Apply eq 5: ``w_j = 1 + lambda * L_j / sum(L)`` for the selected levels, 1 for the others; all ``[K]``."""
    return 1.0 + amplification * shares(loss) * selected


@dataclass(frozen=True)
class SelectionStrategy(Strategy):
    """Amplifies the `top_k` levels with the highest score.

    Attributes:
        amplification: lambda of eq 5.
        top_k: how many levels are amplified; the paper found 2 to be best.
    """

    amplification: float = 1.5
    top_k: int = 2

    def __post_init__(self) -> None:
        fits = 0 <= self.amplification < math.inf
        refuse_unless(fits, "amplification", "finite and at least 0", self.amplification)
        refuse_unless(self.top_k >= 1, "top_k", "at least 1", self.top_k)

    def check(self, levels: int) -> None:
        words = f"below the number of levels, {levels}: amplifying all of them only raises the learning rate"
        refuse_unless(self.top_k < levels, "top_k", words, self.top_k)

    @abstractmethod
    def score(self, statistics: IntervalStatistics) -> Array:
        """Return ``[K]`` scores; the levels with the highest are amplified."""

    def decide(self, statistics: IntervalStatistics, state: State, rng: np.random.Generator) -> Decision:
        selected = select_top(self.score(statistics), self.top_k)
        return amplify(selected, statistics.loss, self.amplification), state


@register
@dataclass(frozen=True)
class AVW(SelectionStrategy):
    """Adaptive Variance Weighting, action a0: amplifies the levels whose variance fell the most (eq 4)."""

    name: ClassVar[str] = "avw"

    def score(self, statistics: IntervalStatistics) -> Array:
        return statistics.variance_reduction


@register
@dataclass(frozen=True)
class MinLoss(SelectionStrategy):
    """Action a1: amplifies the levels with the smallest interval loss."""

    name: ClassVar[str] = "min_loss"

    def score(self, statistics: IntervalStatistics) -> Array:
        return -statistics.loss


@register
@dataclass(frozen=True)
class MaxLoss(SelectionStrategy):
    """Action a2: amplifies the levels with the largest interval loss."""

    name: ClassVar[str] = "max_loss"

    def score(self, statistics: IntervalStatistics) -> Array:
        return statistics.loss


@register
@dataclass(frozen=True)
class Equal(Strategy):
    """Action a3 and the paper's baseline: weighs every level with 1, which records the framework's own training."""

    name: ClassVar[str] = "equal"

    def decide(self, statistics: IntervalStatistics, state: State, rng: np.random.Generator) -> Decision:
        return np.ones_like(statistics.loss), state
