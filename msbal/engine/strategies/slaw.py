"""Scaled loss approximate weighting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from msbal.engine.draw import Draw
from msbal.engine.strategies.base import State, StepStrategy, Weighing, register
from msbal.engine.weighting import empty_levels, rescale


@register
@dataclass(frozen=True)
class SLAW(StepStrategy):
    """Weighs by the inverse of the loss's running standard deviation.

    Crawshaw and Kosecka, "SLAW: Scaled Loss Approximate Weighting for Efficient Multi-Task Learning",
    arXiv 2109.08218: ``w_i = K (1 / s_i) / sum_j (1 / s_j)``, ``s = sqrt(a - b^2)``, a and b exponential
    moving averages of ``L^2`` and L. As in the authors' code they are plain averages over the first
    ``1 / (1 - beta)`` iterations (averages that start at 0 would for hundreds of iterations show how large a
    loss is, not how much it varies), and the weights of the first iteration are 1. Deviates: ``a - b^2``
    is kept as itself, by the recursion that it obeys, since the difference of two averages loses all
    digits of a small variance; an iteration in which a level has no positives, or a loss of zero, does
    not move its averages, and its weight is 1.

    Attributes:
        decay: beta of the moving averages.
        floor: the least s.
    """

    name: ClassVar[str] = "slaw"
    decay: float = 0.99
    floor: float = 1e-5

    def __post_init__(self) -> None:
        if not 0 < self.decay < 1:
            raise ValueError(f"decay should be between 0 and 1. Found {self.decay}.")
        if not 0 < self.floor < float("inf"):
            raise ValueError(f"floor should be finite and above 0. Found {self.floor}.")

    def initial_state(self, levels: int) -> dict[str, Tensor]:
        return {key: torch.zeros(levels, dtype=torch.float64) for key in ("count", "mean", "variance")}

    def weigh(
        self, losses: Tensor, positives: Tensor | None, step: Callable[[], Tensor], state: State, draw: Draw
    ) -> Weighing:
        empty = empty_levels(losses, positives)
        count = state["count"] + (~empty).to(torch.float64)
        averaged = count <= round(1.0 / (1.0 - self.decay))
        keep = torch.where(averaged, 1.0 - 1.0 / count.clamp_min(1.0), self.decay)
        away = (losses - state["mean"]).masked_fill(empty, 0.0)
        mean = state["mean"] + (1.0 - keep) * away
        moved = keep * (state["variance"] + (1.0 - keep) * away.square())
        variance = torch.where(empty, state["variance"], moved)
        weights = rescale(1.0 / variance.sqrt().clamp_min(self.floor), empty | (count < 2))
        return Weighing(weights, {"count": count, "mean": mean, "variance": variance})
