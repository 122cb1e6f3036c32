"""Metrics in 0..1 as texts in per cent."""

from __future__ import annotations

from msbal.ablation.statistics import Summary


def points(value: float | None) -> str:
    """A metric in 0..1 as per cent."""
    return "-" if value is None else f"{100 * value:.2f}"


def signed(value: float | None) -> str:
    """A difference, with its sign."""
    return "-" if value is None else f"{100 * value:+.2f}"


def span(low: float | None, high: float | None) -> str:
    """An interval of differences."""
    return "-" if low is None or high is None else f"{signed(low)} .. {signed(high)}"


def mean_and_sd(summary: Summary) -> str:
    """``36.90 ± 0.21``, without the second for a single run."""
    return points(summary.mean) + ("" if summary.sd is None else f" ± {points(summary.sd)}")
