"""Weighting by the number of positive samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from msbal.engine.draw import Draw
from msbal.engine.strategies.base import Iteration, State, StepStrategy, Weighing, register
from msbal.engine.weighting import rescale


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
    on_numbers: ClassVar[bool] = True

    def initial_state(self, levels: int) -> dict[str, Tensor]:
        return {"seen": torch.zeros(levels, dtype=torch.float64)}

    def weigh(self, iteration: Iteration, state: State, draw: Draw) -> Weighing:
        if iteration.positives is None:
            raise ValueError(
                "losses should have the positives of each level for the strategy `positives`. Found none."
            )
        seen = state["seen"] + iteration.positives
        more = seen - seen.amin()
        spread = (0.0 * more + more.amax()).clamp_min(1.0)
        factor = 2.0 - more / spread
        return Weighing(rescale(factor, iteration.empty), {"seen": seen})
