"""An interval around a mean, and its end at 0 where a test says more than it."""

from __future__ import annotations

Interval = tuple[float, float]


def around(mean: float, reach: float) -> Interval:
    """Return the interval that reaches as far to both sides."""
    return mean - reach, mean + reach


def apart_from_zero(span: Interval, mean: float) -> Interval:
    """Return the part of an interval on the mean's side of 0, for a mean that a test shows to be apart from it."""
    low, high = span
    return (max(low, 0.0), high) if mean > 0 else (low, min(high, 0.0))
