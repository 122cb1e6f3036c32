"""Dynamic weight average."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from msbal.engine.draw import Draw
from msbal.engine.host import unless_nowhere
from msbal.engine.statistics import IntervalStatistics
from msbal.engine.strategies.base import State, Strategy, register
from msbal.engine.weighting import either, empty_levels, rescale_softmax


@register
@dataclass(frozen=True)
class DWA(Strategy):
    """Favours the levels whose loss falls slowest.

    Liu, Johns and Davison, "End-to-End Multi-Task Learning with Attention", CVPR 2019:
    ``w = K softmax(r / T)``, ``r_i = L_i(t-1) / L_i(t-2)``; 1 as long as there are no two losses.
    Deviates: L is the interval's, not the epoch's; a level without positives in the interval, or with a
    loss of zero in one of the two, has the weight 1, and the others sum to their number.

    Attributes:
        temperature: T; the larger, the more equal the weights.
    """

    name: ClassVar[str] = "dwa"
    on_numbers: ClassVar[bool] = True
    temperature: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature should be finite and above 0. Found {self.temperature}.")

    def decide(self, statistics: IntervalStatistics, state: State, draw: Draw) -> tuple[Tensor, State]:
        ratio = statistics.loss / statistics.previous_loss
        # Where no level at all has positives, nobody has counted them.
        counted = statistics.positives + (statistics.positives.sum() == 0)
        empty = either(empty_levels(statistics.loss, counted), unless_nowhere(statistics.previous_loss <= 0))
        return rescale_softmax((ratio / self.temperature).clamp_max(1e300), empty), state
