"""YOLOv5's automatic balance of its output layers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from msbal.baselines.masked import rescale
from msbal.engine.statistics import Array
from msbal.engine.strategies.base import State, refuse_unless, rescaled
from msbal.engine.strategies.registry import register
from msbal.engine.strategies.step import Iteration, StepStrategy, Tensors, Weighing


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
    decay: float = 0.9999
    reference: int = 1
    initial: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        refuse_unless(0 < self.decay < 1, "decay", "between 0 and 1", self.decay)
        refuse_unless(self.reference >= 0, "reference", "at least 0", self.reference)
        if self.initial is not None:
            object.__setattr__(self, "initial", tuple(float(b) for b in self.initial))
            fits = all(math.isfinite(b) and b > 0 for b in self.initial)
            refuse_unless(fits, "initial", "finite numbers above 0", list(self.initial))

    def check(self, levels: int) -> None:
        refuse_unless(
            self.reference < levels, "reference", f"below the number of levels, {levels}", self.reference
        )
        found = levels if self.initial is None else len(self.initial)
        refuse_unless(found == levels, "initial", f"{levels} numbers, one per level", found)

    def initial_state(self, levels: int) -> State:
        start = self.initial or ((4.0, 1.0, 0.4) if levels == 3 else (4.0, 1.0, 0.25, 0.06, 0.02))
        return {"balance": [*start, *[start[-1]] * levels][:levels]}

    def initial_weights(self, levels: int) -> Array:
        return rescaled(np.array(self.initial_state(levels)["balance"]))

    def weigh(self, iteration: Iteration, state: Tensors) -> Weighing:
        balance, empty = state["balance"], iteration.empty
        moved = torch.where(empty, balance, balance.lerp(iteration.losses.reciprocal(), 1.0 - self.decay))
        return Weighing(rescale(balance, empty), {"balance": moved / moved[self.reference]})
