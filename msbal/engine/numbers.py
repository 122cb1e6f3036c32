"""Vectors of Python floats, for a handful of levels on the CPU.

An operator of torch on five numbers costs a microsecond where its code is at hand, and ten where a training
step has driven it out of the processor's caches; this costs half of one, whatever ran before.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from operator import add, eq, le, lt, mul, or_, sub
from typing import Any


class Numbers:
    """What a strategy uses of a ``[K]`` float64 tensor, under the same names and with the same IEEE results.

    Where Python's floats raise (division by zero, the logarithm of zero, an overflow), infinity or NaN comes
    instead, as from torch. Comparisons give Numbers of bools, which are masks.

    Attributes:
        values: K floats, ints or bools.
    """

    __slots__ = ("values",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, values: list[Any]) -> None:
        self.values = values

    def __repr__(self) -> str:
        return f"Numbers({self.values})"

    # -- as a container --------------------------------------------------------------------------

    def numel(self) -> int:
        return len(self.values)

    def tolist(self) -> list[Any]:
        return self.values

    def __getitem__(self, level: int) -> Any:
        return self.values[level]

    # -- arithmetic ------------------------------------------------------------------------------

    def _with(self, other: Any, f: Callable[[Any, Any], Any]) -> Numbers:
        if isinstance(other, Numbers):
            return Numbers(list(map(f, self.values, other.values)))
        return Numbers([f(a, other) for a in self.values])

    def __add__(self, other: Any) -> Numbers:
        return self._with(other, add)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Numbers:
        return self._with(other, sub)

    def __rsub__(self, other: float) -> Numbers:
        return Numbers([other - a for a in self.values])

    def __mul__(self, other: Any) -> Numbers:
        return self._with(other, mul)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Numbers:
        return self._with(other, divide)

    def __neg__(self) -> Numbers:
        return Numbers([-a for a in self.values])

    def reciprocal(self) -> Numbers:
        return Numbers([divide(1.0, a) for a in self.values])

    def lerp(self, end: Numbers, weight: Any) -> Numbers:
        """``self + weight * (end - self)``, exact at both ends; `weight` within [0, 1]."""
        weights = weight.values if isinstance(weight, Numbers) else [weight] * len(self.values)
        return Numbers(
            [
                a + w * (b - a) if w < 0.5 else b - (b - a) * (1.0 - w)
                for a, b, w in zip(self.values, end.values, weights, strict=True)
            ]
        )

    def addcmul(self, one: Numbers, other: Numbers) -> Numbers:
        """``self + one * other``."""
        return Numbers([a + b * c for a, b, c in zip(self.values, one.values, other.values, strict=True)])

    # -- functions -------------------------------------------------------------------------------

    def exp(self) -> Numbers:
        return Numbers([_exp(a) for a in self.values])

    def log(self) -> Numbers:
        return Numbers([_log(a) for a in self.values])

    def sqrt(self) -> Numbers:
        return Numbers([math.sqrt(a) if a >= 0 else math.nan for a in self.values])

    def clamp_min(self, least: float) -> Numbers:
        return Numbers([least if a < least else a for a in self.values])

    def clamp_max(self, most: float) -> Numbers:
        return Numbers([most if a > most else a for a in self.values])

    def softmax(self, dim: int) -> Numbers:
        """Of one dimension, which is 0."""
        largest = max(self.values)
        raised = [math.exp(a - largest) for a in self.values]
        total = sum(raised)
        return Numbers([a / total for a in raised])

    # -- reductions: floats ----------------------------------------------------------------------

    def sum(self) -> Any:
        return sum(self.values)

    def mean(self) -> float:
        return float(sum(self.values) / len(self.values))

    def amin(self) -> Any:
        return min(self.values)

    def amax(self) -> Any:
        return max(self.values)

    # -- masks -----------------------------------------------------------------------------------

    def __le__(self, other: Any) -> Numbers:
        return self._with(other, le)

    def __lt__(self, other: Any) -> Numbers:
        return self._with(other, lt)

    def __eq__(self, other: object) -> Any:
        return self._with(other, eq)

    def __or__(self, other: Numbers) -> Numbers:
        return self._with(other, or_)

    def masked_fill(self, mask: Numbers, value: float) -> Numbers:
        return Numbers([value if m else a for a, m in zip(self.values, mask.values, strict=True)])

    def where(self, mask: Numbers, other: Numbers) -> Numbers:
        """`self` where the mask is true, else `other`."""
        return Numbers(
            [a if m else b for a, b, m in zip(self.values, other.values, mask.values, strict=True)]
        )


def divide(a: float, b: float) -> float:
    """``a / b`` as IEEE 754 has it, without an exception."""
    try:
        return a / b
    except ZeroDivisionError:
        return math.nan if a == 0 or a != a else math.copysign(math.inf, a) * math.copysign(1.0, b)


def _exp(a: float) -> float:
    try:
        return math.exp(a)
    except OverflowError:
        return math.inf


def _log(a: float) -> float:
    try:
        return math.log(a)
    except ValueError:
        return -math.inf if a == 0 else math.nan
