"""Scaled loss approximate weighting."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from msbal.baselines.masked import rescale
from msbal.engine.strategies.base import State, refuse_unless
from msbal.engine.strategies.registry import register
from msbal.engine.strategies.step import Iteration, StepStrategy, Tensors, Weighing


@register
@dataclass(frozen=True)
class SLAW(StepStrategy):
    """Weighs by the inverse of the loss's running standard deviation.

    Crawshaw and Kosecka, "SLAW: Scaled Loss Approximate Weighting for Efficient Multi-Task Learning",
    arXiv 2109.08218: ``w_i = K (1 / s_i) / sum_j (1 / s_j)``, ``s = sqrt(a - b^2)``, a and b exponential moving
    averages of ``L^2`` and L. As in the authors' code they are plain averages over the first ``1 / (1 - beta)``
    iterations (averages that start at 0 would show for hundreds of iterations how large a loss is, not how much it
    varies), and the weights of the first iteration are 1. Deviates: ``a - b^2`` is computed by its own recursion, since
    the difference of two averages loses all digits of a small variance; an iteration in which a level has no positives,
    or a loss of zero, does not move its averages, and its weight is 1.

    Attributes:
        decay: beta of the moving averages.
        floor: the lowest s.
    """

    name: ClassVar[str] = "slaw"
    decay: float = 0.99
    floor: float = 1e-5

    def __post_init__(self) -> None:
        refuse_unless(0 < self.decay < 1, "decay", "between 0 and 1", self.decay)
        refuse_unless(0 < self.floor < math.inf, "floor", "finite and above 0", self.floor)

    def initial_state(self, levels: int) -> State:
        return {"moments": [[0.0] * levels for _ in ("count", "mean", "variance")]}

    def weigh(self, iteration: Iteration, state: Tensors) -> Weighing:
        count, mean, variance = state["moments"]
        count = count + 1.0
        rate = count.reciprocal().clamp_min(1.0 - self.decay)
        away = iteration.losses - mean
        variance = (1.0 - rate) * variance.addcmul(rate * away, away)
        moments = torch.stack([count, mean.lerp(iteration.losses, rate), variance])
        raw = variance.sqrt().clamp_min(self.floor).reciprocal()
        weights = rescale(raw, iteration.empty | (count < 2.0))
        return Weighing(weights, {"moments": torch.where(iteration.empty, state["moments"], moments)})
