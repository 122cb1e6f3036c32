"""The paper's action a3, and its baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from msbal.engine.draw import Draw
from msbal.engine.statistics import IntervalStatistics
from msbal.engine.strategies.base import State, Strategy, ones, register


@register
@dataclass(frozen=True)
class Equal(Strategy):
    """Weighs every level with 1: the framework's own training, with records."""

    name: ClassVar[str] = "equal"
    on_numbers: ClassVar[bool] = True

    def decide(self, statistics: IntervalStatistics, state: State, draw: Draw) -> tuple[Tensor, State]:
        return ones(statistics), state
