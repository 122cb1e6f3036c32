"""Adaptive Variance Weighting, the paper's section 2.2 and action a0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from msbal.engine.statistics import IntervalStatistics
from msbal.engine.strategies.base import register
from msbal.engine.strategies.selection import SelectionStrategy


@register
@dataclass(frozen=True)
class AVW(SelectionStrategy):
    """Amplifies the levels whose variance fell the most (eq 4)."""

    name: ClassVar[str] = "avw"
    on_numbers: ClassVar[bool] = True

    def score(self, statistics: IntervalStatistics) -> Tensor:
        return statistics.variance_reduction
