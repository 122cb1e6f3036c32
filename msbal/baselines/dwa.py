"""Dynamic weight average."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

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
        loss, previous = statistics.loss, statistics.previous_loss
        kept = (loss > 0) & (previous > 0)
        if statistics.positives is not None:
            kept &= statistics.positives > 0
        weights = np.ones_like(loss)
        if kept.any():
            with np.errstate(over="ignore"):
                logits = np.minimum(loss[kept] / previous[kept] / self.temperature, 1e300)
            raw = np.exp(logits - logits.max())
            weights[kept] = raw * (kept.sum() / raw.sum())
        return weights, state
