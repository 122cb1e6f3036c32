"""Soft optimal uncertainty weighting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from msbal.engine.draw import Draw
from msbal.engine.strategies.base import Iteration, State, StepStrategy, Weighing, register
from msbal.engine.weighting import rescale_softmax


@register
@dataclass(frozen=True)
class UWSO(StepStrategy):
    """Weighs by a softmax of the inverse losses.

    Kirchdorfer et al., "Analytical Uncertainty-Based Loss Weighting in Multi-Task Learning", GCPR 2024,
    arXiv 2408.07985: ``w = softmax(1 / (T L))`` of each iteration's losses, not differentiated.
    Deviates: rescaled to the sum K; a level without positives, or with a loss of zero, has the weight 1.

    Attributes:
        temperature: T. The paper tunes it for each data set; the smaller the losses, the larger it
            should be.
    """

    name: ClassVar[str] = "uw_so"
    on_numbers: ClassVar[bool] = True
    temperature: float = 10.0

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature should be finite and above 0. Found {self.temperature}.")

    def weigh(self, iteration: Iteration, state: State, draw: Draw) -> Weighing:
        # The inverse of a loss near the least number is infinite.
        logits = (self.temperature * iteration.losses).reciprocal().clamp_max(1e300)
        return Weighing(rescale_softmax(logits, iteration.empty))
