"""Weighting by the coefficient of variation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from msbal.baselines.masked import rescale
from msbal.engine.strategies.base import State, refuse_unless
from msbal.engine.strategies.registry import register
from msbal.engine.strategies.step import Iteration, StepStrategy, Tensors, Weighing


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
    decay: float | None = None

    def __post_init__(self) -> None:
        fits = self.decay is None or 0 < self.decay < 1
        refuse_unless(fits, "decay", "between 0 and 1, or None", self.decay)

    def initial_state(self, levels: int) -> State:
        return {"moments": [[0.0] * levels for _ in ("count", "mean loss", "mean ratio", "squares")]}

    def weigh(self, iteration: Iteration, state: Tensors) -> Weighing:
        count, mean_loss, mean_ratio, squares = state["moments"]
        losses, empty = iteration.losses, iteration.empty
        # The 1e-8 is the authors' code's.
        deviation = (squares / count + 1e-8).sqrt()
        weights = rescale(deviation / mean_ratio, empty | (count < 2.0))

        counted, first = count + 1.0, count == 0.0
        ratio = (losses / mean_loss).masked_fill(first, 1.0)
        rate = counted.reciprocal() if self.decay is None else 0.0 * count + (1.0 - self.decay)
        rate = rate.masked_fill(first, 1.0)
        new_ratio = mean_ratio.lerp(ratio, rate)
        squares = squares.addcmul(ratio - mean_ratio, ratio - new_ratio)
        moments = torch.stack([counted, mean_loss.lerp(losses, rate), new_ratio, squares])
        return Weighing(weights, {"moments": torch.where(empty, state["moments"], moments)})
