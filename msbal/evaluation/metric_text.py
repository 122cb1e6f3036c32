"""Metrics in 0..1 as texts in per cent, ``-`` where there is none."""

from __future__ import annotations

_NAMES = {"mAP": "VOC mAP", "mAP_11": "VOC mAP 11-point"}


def full_name(metric: str) -> str:
    """Return the name of a metric that a reader is shown."""
    return _NAMES.get(metric, metric)


def points(value: float | None) -> str:
    """Return a metric with two decimals."""
    return "-" if value is None else f"{100 * value:.2f}"


def signed(value: float | None) -> str:
    """Return a difference with its sign."""
    return "-" if value is None else f"{100 * value:+.2f}"


def span(low: float | None, high: float | None) -> str:
    """Return an interval of differences."""
    return "-" if low is None or high is None else f"{signed(low)} .. {signed(high)}"


def mean_and_sd(mean: float | None, sd: float | None) -> str:
    """Return ``36.90 ± 0.21``, or the mean alone where one run has no standard deviation."""
    return points(mean) + ("" if sd is None else f" ± {points(sd)}")
