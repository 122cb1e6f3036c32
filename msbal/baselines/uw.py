"""Uncertainty weighting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from msbal.baselines.masked import rescale_softmax
from msbal.engine.strategies.registry import register
from msbal.engine.strategies.step import Iteration, StepStrategy, Tensors, Weighing


@register
@dataclass(frozen=True)
class UW(StepStrategy):
    """Learns a variance for each level and weighs by its inverse.

    Kendall, Gal and Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry
    and Semantics", CVPR 2018: minimises ``sum_i exp(-s_i) L_i / 2 + s_i / 2``, s learned by the
    optimizer of the model. Deviates: the weights ``exp(-s_i) / 2`` are rescaled to the sum K, so that
    the learning rate of the model stays; s itself gets the gradient of the paper's objective. A level
    without positives, or with a loss of zero, keeps the weight 1 and its s.

    Attributes:
        initial: s of all levels at the start, the logarithm of a variance.
    """

    name: ClassVar[str] = "uw"
    initial: float = 0.0

    def initial_parameters(self, levels: int) -> Mapping[str, list[float]]:
        return {"log_variance": [self.initial] * levels}

    def weigh(self, iteration: Iteration, state: Tensors) -> Weighing:
        log_inverse, empty = -state["log_variance"], iteration.empty
        derivative = 0.5 - 0.5 * (log_inverse.exp() * iteration.losses)  # of the objective, by s
        gradient = derivative.masked_fill(empty, 0.0)
        return Weighing(rescale_softmax(log_inverse, empty), gradients={"log_variance": gradient})
