"""Constant weights: the baseline that a tuned loss has to beat."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from msbal.engine.draw import Draw
from msbal.engine.statistics import IntervalStatistics
from msbal.engine.strategies.base import State, Strategy, register


@register
@dataclass(frozen=True)
class Fixed(Strategy):
    """Weighs the levels with given constants from the first iteration on.

    Attributes:
        weights: one per level, finest first. Not rescaled.
    """

    name: ClassVar[str] = "fixed"
    on_numbers: ClassVar[bool] = True
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", tuple(float(w) for w in self.weights))
        if not self.weights or not all(math.isfinite(w) and w >= 0 for w in self.weights):
            raise ValueError(
                f"weights should be finite numbers of at least 0, one per level. Found {list(self.weights)}."
            )

    def check(self, levels: int) -> None:
        if len(self.weights) != levels:
            raise ValueError(
                f"weights should have {levels} numbers, one per level. Found {len(self.weights)}."
            )

    def initial_weights(self, levels: int) -> Tensor:
        return torch.tensor(self.weights, dtype=torch.float64)

    def decide(self, statistics: IntervalStatistics, state: State, draw: Draw) -> tuple[Tensor, State]:
        return statistics.weights, state
