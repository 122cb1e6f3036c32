"""Random loss weighting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from msbal.baselines.masked import rescale_softmax
from msbal.engine.statistics import Array
from msbal.engine.strategies.registry import register
from msbal.engine.strategies.step import Iteration, StepStrategy, Tensors, Weighing


@register
@dataclass(frozen=True)
class RLW(StepStrategy):
    """Draws new weights at every iteration.

    Lin et al., "Reasonable Effectiveness of Random Weighting: A Litmus Test for Multi-Task Learning",
    TMLR 2022, arXiv 2111.10603: ``w = softmax(z)``, z standard normal. Deviates: rescaled to the sum K; a
    level without positives, or with a loss of zero, has the weight 1.
    """

    name: ClassVar[str] = "rlw"

    def draws(self, rng: np.random.Generator, interval: int, levels: int) -> Array:
        return rng.standard_normal((interval, levels))

    def weigh(self, iteration: Iteration, state: Tensors) -> Weighing:
        assert iteration.draws is not None
        return Weighing(rescale_softmax(iteration.draws, iteration.empty))
