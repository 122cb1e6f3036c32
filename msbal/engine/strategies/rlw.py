"""Random loss weighting."""

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
class RLW(StepStrategy):
    """Draws new weights at every iteration.

    Lin et al., "Reasonable Effectiveness of Random Weighting: A Litmus Test for Multi-Task Learning",
    TMLR 2022, arXiv 2111.10603: ``w = softmax(z)``, z standard normal. Deviates: rescaled to the sum K; a
    level without positives, or with a loss of zero, has the weight 1.
    """

    name: ClassVar[str] = "rlw"

    def weigh(
        self, losses: Tensor, positives: Tensor | None, step: Callable[[], Tensor], state: State, draw: Draw
    ) -> Weighing:
        k = losses.numel()
        z = draw.normal(step() * k + torch.arange(k, device=losses.device))
        return Weighing(rescale_softmax(z, empty_levels(losses, positives)))
