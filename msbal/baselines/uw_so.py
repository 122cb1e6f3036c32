"""Soft optimal uncertainty weighting."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from msbal.baselines.masked import rescale_softmax
from msbal.engine.strategies.base import refuse_unless
from msbal.engine.strategies.registry import register
from msbal.engine.strategies.step import Iteration, StepStrategy, Tensors, Weighing


@register
@dataclass(frozen=True)
class UWSO(StepStrategy):
    """Weighs by a softmax of the inverse losses.

    Kirchdorfer et al., "Analytical Uncertainty-Based Loss Weighting in Multi-Task Learning", GCPR 2024,
    arXiv 2408.07985: ``w = softmax(1 / (T L))`` of each iteration's losses, not differentiated.
    Deviates: rescaled to the sum K; a level without positives, or with a loss of zero, has the weight 1.

    Attributes:
        temperature: T. The paper tunes it for each data set; the smaller the losses, the larger it should be.
    """

    name: ClassVar[str] = "uw_so"
    temperature: float = 10.0

    def __post_init__(self) -> None:
        refuse_unless(0 < self.temperature < math.inf, "temperature", "finite and above 0", self.temperature)

    def weigh(self, iteration: Iteration, state: Tensors) -> Weighing:
        # The inverse of a loss near the least number is infinite.
        logits = (self.temperature * iteration.losses).reciprocal().clamp_max(1e300)
        return Weighing(rescale_softmax(logits, iteration.empty))
