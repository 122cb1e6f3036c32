"""Dynamic weight average."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from msbal.baselines.masked import fill_softmax, has_loss
from msbal.engine.statistics import IntervalStatistics
from msbal.engine.strategies.base import Decision, State, Strategy, refuse_unless
from msbal.engine.strategies.registry import register


@register
@dataclass(frozen=True)
class DWA(Strategy):
    """Favours the levels whose loss falls slowest.

    Liu, Johns and Davison, "End-to-End Multi-Task Learning with Attention", CVPR 2019:
    ``w = K softmax(r / T)``, ``r_i = L_i(t-1) / L_i(t-2)``; 1 until there are two losses. Deviates: L is the
    interval's, not the epoch's; a level without positives in the interval, or with a loss of zero in one of the two,
    has the weight 1, and the others sum to their number.

    Attributes:
        temperature: T; the larger, the more equal the weights.
    """

    name: ClassVar[str] = "dwa"
    temperature: float = 2.0

    def __post_init__(self) -> None:
        refuse_unless(0 < self.temperature < math.inf, "temperature", "finite and above 0", self.temperature)

    def decide(self, statistics: IntervalStatistics, state: State, rng: np.random.Generator) -> Decision:
        kept = has_loss(statistics) & (statistics.previous_loss > 0)
        with np.errstate(over="ignore"):
            ratio = statistics.loss[kept] / statistics.previous_loss[kept]
        return fill_softmax(ratio / self.temperature, kept), state
