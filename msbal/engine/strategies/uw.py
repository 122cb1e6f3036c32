"""Uncertainty weighting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from msbal.engine.draw import Draw
from msbal.engine.strategies.base import State, StepStrategy, Weighing, register
from msbal.engine.weighting import empty_levels, rescale_softmax


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

    def initial_parameters(self, levels: int) -> dict[str, Tensor]:
        return {"log_variance": torch.full((levels,), self.initial)}

    def weigh(
        self, losses: Tensor, positives: Tensor | None, step: Callable[[], Tensor], state: State, draw: Draw
    ) -> Weighing:
        log_variance = state["log_variance"].to(losses.dtype)
        empty = empty_levels(losses, positives)
        terms = 0.5 * (torch.exp(-log_variance) * losses + log_variance)
        objective = terms.masked_fill(empty, 0.0).sum()
        return Weighing(rescale_softmax(-log_variance.detach(), empty), objective=objective)
