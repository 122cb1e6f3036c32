"""Constant weights: the baseline that any strategy has to beat."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from msbal.engine.statistics import Array, IntervalStatistics
from msbal.engine.strategies.base import Decision, State, Strategy, refuse_unless
from msbal.engine.strategies.registry import register


@register
@dataclass(frozen=True)
class Fixed(Strategy):
    """Weighs the levels by given constants from the first iteration on.

    Attributes:
        weights: one per level, finest first. Not rescaled unless the balancer's `rescale` is set.
    """

    name: ClassVar[str] = "fixed"
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", tuple(float(w) for w in self.weights))
        refuse_unless(
            all(math.isfinite(w) and w >= 0 for w in self.weights) and any(self.weights),
            "weights", "finite numbers of at least 0, one per level, not all 0", list(self.weights),
        )  # fmt: skip

    def check(self, levels: int) -> None:
        refuse_unless(
            len(self.weights) == levels, "weights", f"{levels} numbers, one per level", len(self.weights)
        )

    def initial_weights(self, levels: int) -> Array:
        return np.array(self.weights)

    def decide(self, statistics: IntervalStatistics, state: State, rng: np.random.Generator) -> Decision:
        return np.array(self.weights), state
