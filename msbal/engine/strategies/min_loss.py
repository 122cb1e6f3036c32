"""The paper's action a1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from msbal.engine.statistics import IntervalStatistics
from msbal.engine.strategies.base import register
from msbal.engine.strategies.selection import SelectionStrategy


@register
@dataclass(frozen=True)
class MinLoss(SelectionStrategy):
    """Amplifies the levels with the smallest interval loss."""

    name: ClassVar[str] = "min_loss"
    on_numbers: ClassVar[bool] = True

    def score(self, statistics: IntervalStatistics) -> Tensor:
        return -statistics.loss
