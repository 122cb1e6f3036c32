"""Constant weights by the levels' strides: YOLOv5's `balance`."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from msbal.engine.statistics import Array, IntervalStatistics
from msbal.engine.strategies.base import Decision, State, Strategy, refuse_unless, rescaled
from msbal.engine.strategies.registry import register

LARGEST_Q = 10.0


@register
@dataclass(frozen=True)
class Stride(Strategy):
    """Weighs the levels by a power of their strides, from the first iteration on.

    ``w_i`` is proportional to ``(stride_i / stride_1) ** q``, and they sum to K. Ultralytics, YOLOv5, ``ComputeLoss``:
    its `balance` for five levels, 4, 1, 0.25, 0.06, 0.02, is q = -2, and that for three, 4, 1, 0.4, about q = -1.66.
    Deviates: there only the objectness loss is weighed, and the sum is not K; here all terms are.

    Attributes:
        q: the exponent. Below 0 it favours fine levels, above 0 coarse ones, and 0 weighs all alike.
        strides: pixels a cell, one per level, finest first; by default what the levels' names say: P3 is 8, S12 is 12.
    """

    name: ClassVar[str] = "stride"
    q: float = -2.0
    strides: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        fits = abs(self.q) <= LARGEST_Q
        refuse_unless(fits, "q", f"between {-LARGEST_Q:g} and {LARGEST_Q:g}", self.q)
        if self.strides is not None:
            object.__setattr__(self, "strides", tuple(float(stride) for stride in self.strides))
            fits = all(math.isfinite(stride) and stride > 0 for stride in self.strides)
            refuse_unless(fits, "strides", "finite numbers above 0, one per level", list(self.strides))

    def of(self, levels: Sequence[str]) -> Stride:
        if self.strides is not None:
            return self
        named = [_stride(level) for level in levels]
        known = [stride for stride in named if stride is not None]
        words = "given, one per level, where the levels' names do not say them (P3 is 8, S12 is 12)"
        refuse_unless(len(known) == len(named), "strides", words, f"levels {', '.join(levels)}")
        return replace(self, strides=tuple(known))

    def check(self, levels: int) -> None:
        found = levels if self.strides is None else len(self.strides)
        refuse_unless(found == levels, "strides", f"{levels} numbers, one per level", found)

    def initial_weights(self, levels: int) -> Array:
        assert self.strides is not None, "the balancer has asked `of` its levels"
        strides = np.array(self.strides)
        return rescaled((strides / strides[0]) ** self.q)

    def decide(self, statistics: IntervalStatistics, state: State, rng: np.random.Generator) -> Decision:
        return statistics.weights, state


def _stride(level: str) -> float | None:
    """Return the stride in a name that `msbal.backend.kit.splitter.level_names` gives; None for another name."""
    found = re.fullmatch(r"(?:P(\d\d?)|S(\d+(?:\.\d+)?))[a-z]?", level)
    if found is None:
        return None
    return 2.0 ** int(found[1]) if found[1] else float(found[2]) or None
