"""YOLOv5's automatic balance of its output layers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from msbal.engine.draw import Draw
from msbal.engine.strategies.base import Iteration, State, StepStrategy, Weighing, register
from msbal.engine.weighting import keep_empty, rescale


@register
@dataclass(frozen=True)
class Autobalance(StepStrategy):
    """Weighs by a slow average of the inverse loss, measured against that of one level.

    Ultralytics, YOLOv5, ``ComputeLoss(autobalance=True)``: after every iteration
    ``b_i <- 0.9999 b_i + 0.0001 / L_i``, then ``b <- b / b_reference``. Deviates: there it weighs the
    objectness loss alone, here all terms; rescaled to the sum K; an iteration in which a level has no
    positives, or a loss of zero, does not move its average, and its weight is 1.

    Attributes:
        decay: of the average.
        reference: the level, counted from 0 at the finest, whose b stays 1: stride 16 of P3 to P5.
        initial: b at the start, one per level; by default YOLOv5's, 4, 1, 0.4 for three levels, and the
            first of 4, 1, 0.25, 0.06, 0.02 for another number (0.02 beyond the fifth).
    """

    name: ClassVar[str] = "autobalance"
    on_numbers: ClassVar[bool] = True
    decay: float = 0.9999
    reference: int = 1
    initial: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.decay < 1:
            raise ValueError(f"decay should be between 0 and 1. Found {self.decay}.")
        if self.reference < 0:
            raise ValueError(f"reference should be at least 0. Found {self.reference}.")
        if self.initial is not None:
            object.__setattr__(self, "initial", tuple(float(b) for b in self.initial))
            if not all(math.isfinite(b) and b > 0 for b in self.initial):
                raise ValueError(f"initial should be finite numbers above 0. Found {list(self.initial)}.")

    def check(self, levels: int) -> None:
        if self.reference >= levels:
            raise ValueError(
                f"reference should be below the number of levels, {levels}. Found {self.reference}."
            )
        if self.initial is not None and len(self.initial) != levels:
            raise ValueError(
                f"initial should have {levels} numbers, one per level. Found {len(self.initial)}."
            )

    def initial_state(self, levels: int) -> dict[str, Tensor]:
        start = self.initial or ((4.0, 1.0, 0.4) if levels == 3 else (4.0, 1.0, 0.25, 0.06, 0.02))
        padded = (*start, *[start[-1]] * levels)[:levels]
        return {"balance": torch.tensor(padded, dtype=torch.float64)}

    def initial_weights(self, levels: int) -> Tensor:
        balance = self.initial_state(levels)["balance"]
        return rescale(balance, None)

    def weigh(self, iteration: Iteration, state: State, draw: Draw) -> Weighing:
        balance, empty = state["balance"], iteration.empty
        moved = keep_empty(empty, balance, balance.lerp(iteration.losses.reciprocal(), 1.0 - self.decay))
        return Weighing(rescale(balance, empty), {"balance": moved / moved[self.reference]})
