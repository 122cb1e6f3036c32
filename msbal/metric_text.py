"""Metrics in 0..1 as people read them: in points, 0..100 as papers have them, and ``-`` where there is none.

Each text is a `Cell` that has its numbers, too, in points: a CSV file has them in columns of their own.
"""

from __future__ import annotations

from msbal.table import Cell

_NAMES = {"mAP": "VOC mAP", "mAP_11": "VOC mAP 11-point"}


def full_name(metric: str) -> str:
    """Return the name of a metric that a reader is shown."""
    return _NAMES.get(metric, metric)


def points(value: float | None, digits: int = 2) -> Cell:
    """Return a metric in points, e.g. ``41.23``."""
    return Cell("-" if value is None else f"{100 * value:.{digits}f}", values=(_exact(value),))


def in_points(value: float) -> str:
    """Return a size from a spec in words: ``0.5 points``, ``1 point``."""
    text = f"{100 * value:g}"
    return f"{text} point{'s' * (text != '1')}"


def signed(value: float | None, digits: int = 2) -> Cell:
    """Return a difference in points, with its sign."""
    return Cell("-" if value is None else f"{100 * value:+.{digits}f}", values=(_exact(value),))


def span(low: float | None, high: float | None, digits: int = 2) -> Cell:
    """Return an interval of differences, in points."""
    text = "-" if low is None or high is None else f"{signed(low, digits)} .. {signed(high, digits)}"
    return Cell(text, values=(_exact(low), _exact(high)))


def mean_and_sd(mean: float | None, sd: float | None) -> Cell:
    """Return ``36.90 ± 0.21``, or the mean alone where one run has no standard deviation."""
    return Cell(points(mean) + ("" if sd is None else f" ± {points(sd)}"), values=(_exact(mean), _exact(sd)))


def _exact(value: float | None) -> float | None:
    """Return points without the rounding error of the multiplication."""
    return None if value is None else round(100 * value, 8)
