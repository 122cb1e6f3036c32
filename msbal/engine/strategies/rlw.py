"""Random loss weighting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from msbal.engine.draw import Draw
from msbal.engine.strategies.base import Iteration, State, StepStrategy, Weighing, register
from msbal.engine.weighting import rescale_softmax


@register
@dataclass(frozen=True)
class RLW(StepStrategy):
    """Draws new weights at every iteration.

    Lin et al., "Reasonable Effectiveness of Random Weighting: A Litmus Test for Multi-Task Learning",
    TMLR 2022, arXiv 2111.10603: ``w = softmax(z)``, z standard normal. Deviates: rescaled to the sum K; a
    level without positives, or with a loss of zero, has the weight 1.
    """

    name: ClassVar[str] = "rlw"
    on_numbers: ClassVar[bool] = True

    def weigh(self, iteration: Iteration, state: State, draw: Draw) -> Weighing:
        k = iteration.losses.numel()
        return Weighing(rescale_softmax(draw.normal(iteration.step() * k, k), iteration.empty))
