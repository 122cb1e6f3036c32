"""The geometric loss strategy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from msbal.engine.draw import Draw
from msbal.engine.strategies.base import Iteration, State, StepStrategy, Weighing, register
from msbal.engine.weighting import rescale_softmax


@register
@dataclass(frozen=True)
class GLS(StepStrategy):
    """Follows the gradient of the losses' geometric mean.

    Chennupati et al., "MultiNet++: Multi-Stream Feature Aggregation and Geometric Loss Strategy for
    Multi-Task Learning", CVPR Workshops 2019: minimises ``G = (prod_i L_i)^(1/K)``, whose gradient is
    ``sum_i G / (K L_i) grad L_i``: weights proportional to ``1 / L_i``. Deviates: rescaled to the sum K,
    which G / K would change with the losses; a level without positives, or with a loss of zero, has the
    weight 1 and is no factor.
    """

    name: ClassVar[str] = "gls"
    on_numbers: ClassVar[bool] = True

    def weigh(self, iteration: Iteration, state: State, draw: Draw) -> Weighing:
        return Weighing(rescale_softmax(-iteration.losses.log(), iteration.empty))
