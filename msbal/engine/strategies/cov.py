"""Weighting by the coefficient of variation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from msbal.engine.draw import Draw
from msbal.engine.host import unless_nowhere
from msbal.engine.strategies.base import Iteration, State, StepStrategy, Weighing, register
from msbal.engine.weighting import either, keep_empty, rescale


@register
@dataclass(frozen=True)
class CoV(StepStrategy):
    """Weighs by how much a level's loss, measured against its own mean so far, varies.

    Groenendijk et al., "Multi-Loss Weighting with Coefficient of Variations", WACV 2021: with
    ``l_t = L_t / mean(L_1 .. L_{t-1})``, ``w ~ std(l) / mean(l)`` over all iterations before, by
    Welford's algorithm; equal in the first two. Deviates: rescaled to the sum K, not 1, which would
    divide the learning rate by K; an iteration in which a level has no positives, or a loss of zero, does
    not enter that level's statistics, and its weight is 1.

    Attributes:
        decay: of the running means; None averages over all iterations.
    """

    name: ClassVar[str] = "cov"
    on_numbers: ClassVar[bool] = True
    decay: float | None = None

    def __post_init__(self) -> None:
        if self.decay is not None and not 0 < self.decay < 1:
            raise ValueError(f"decay should be between 0 and 1, or None. Found {self.decay}.")

    def initial_state(self, levels: int) -> dict[str, Tensor]:
        keys = ("count", "mean_loss", "mean_ratio", "squares")
        return {key: torch.zeros(levels, dtype=torch.float64) for key in keys}

    def weigh(self, iteration: Iteration, state: State, draw: Draw) -> Weighing:
        count, mean_loss, mean_ratio = state["count"], state["mean_loss"], state["mean_ratio"]
        losses, empty = iteration.losses, iteration.empty
        young = unless_nowhere(count < 2.0)
        # The 1e-8 is the authors' code's.
        deviation = (state["squares"] / count + 1e-8).sqrt()
        weights = rescale(deviation / mean_ratio, either(empty, young))

        counted = count + 1.0
        ratio = losses / mean_loss
        rate = counted.reciprocal() if self.decay is None else 0.0 * count + (1.0 - self.decay)
        if young is not None:
            first = count == 0.0
            ratio, rate = ratio.masked_fill(first, 1.0), rate.masked_fill(first, 1.0)
        new_ratio = mean_ratio.lerp(ratio, rate)
        new = {
            "count": counted,
            "mean_loss": mean_loss.lerp(losses, rate),
            "mean_ratio": new_ratio,
            "squares": state["squares"].addcmul(ratio - mean_ratio, ratio - new_ratio),
        }
        return Weighing(weights, {key: keep_empty(empty, state[key], value) for key, value in new.items()})
