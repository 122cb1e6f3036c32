"""The paper's action a2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from msbal.engine.statistics import IntervalStatistics
from msbal.engine.strategies.base import register
from msbal.engine.strategies.selection import SelectionStrategy


@register
@dataclass(frozen=True)
class MaxLoss(SelectionStrategy):
    """Amplifies the levels with the largest interval loss."""

    name: ClassVar[str] = "max_loss"
    on_numbers: ClassVar[bool] = True

    def score(self, statistics: IntervalStatistics) -> Tensor:
        return statistics.loss
