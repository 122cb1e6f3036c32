"""Weighting by the number of positive samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from msbal.baselines.masked import rescale
from msbal.engine.strategies.base import State
from msbal.engine.strategies.registry import register
from msbal.engine.strategies.step import Iteration, StepStrategy, Tensors, Weighing


@register
@dataclass(frozen=True)
class Positives(StepStrategy):
    """Favours the levels that have had the fewest positive samples.

    Chen et al., "Disentangle Your Dense Object Detector", ACM MM 2021 (DDOD):
    ``w_i = 2 - (n_i - min n) / (max n - min n)``, n the positives of all iterations so far, this one
    included. Deviates: rescaled to the sum K; a level without positives in this iteration, or with a loss
    of zero, has the weight 1.
    """

    name: ClassVar[str] = "positives"
    needs_positives: ClassVar[bool] = True

    def initial_state(self, levels: int) -> State:
        return {"seen": [0.0] * levels}

    def weigh(self, iteration: Iteration, state: Tensors) -> Weighing:
        assert iteration.positives is not None  # the balancer has refused losses without
        seen = state["seen"] + iteration.positives
        more = seen - seen.amin()
        factor = 2.0 - more / more.amax().clamp_min(1.0)
        return Weighing(rescale(factor, iteration.empty), {"seen": seen})
