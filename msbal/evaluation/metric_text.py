"""Metrics in 0..1 as people read them: in points, 0..100 as papers have them, and ``-`` where there is none."""

from __future__ import annotations

_NAMES = {"mAP": "VOC mAP", "mAP_11": "VOC mAP 11-point"}


def full_name(metric: str) -> str:
    """Return the name of a metric that a reader is shown."""
    return _NAMES.get(metric, metric)


def points(value: float | None, digits: int = 2) -> str:
    """Return a metric in points, e.g. ``41.23``."""
    return "-" if value is None else f"{100 * value:.{digits}f}"


def signed(value: float | None, digits: int = 2) -> str:
    """Return a difference in points, with its sign."""
    return "-" if value is None else f"{100 * value:+.{digits}f}"


def span(low: float | None, high: float | None, digits: int = 2) -> str:
    """Return an interval of differences, in points."""
    return "-" if low is None or high is None else f"{signed(low, digits)} .. {signed(high, digits)}"


def mean_and_sd(mean: float | None, sd: float | None) -> str:
    """Return ``36.90 ± 0.21``, or the mean alone where one run has no standard deviation."""
    return points(mean) + ("" if sd is None else f" ± {points(sd)}")
