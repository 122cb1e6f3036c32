"""The geometric loss strategy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from msbal.baselines.masked import rescale_softmax
from msbal.engine.strategies.registry import register
from msbal.engine.strategies.step import Iteration, StepStrategy, Tensors, Weighing


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

    def weigh(self, iteration: Iteration, state: Tensors) -> Weighing:
        return Weighing(rescale_softmax(-iteration.losses.log(), iteration.empty))
