"""The course of the weights over the iterations, over the seeds of an arm, and its drawing on the page."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msbal.ablation.reporting.svg import AXIS, Drawing, Scale, round_ticks, scale_of
from msbal.plotting.series import GroupSeries

MAX_POINTS = 60
"""Points along a curve; more intervals are averaged to so many."""
HEIGHT = 170.0  # pixels


@dataclass(frozen=True)
class Course:
    """The weights of one arm over the iterations, over its seeds. P points, K levels.

    Attributes:
        iteration: ``[P]``.
        mean, low, high: ``[P, K]`` over the seeds.
    """

    levels: tuple[str, ...]
    iteration: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @property
    def constant(self) -> bool:
        """Whether no weight ever changes."""
        return bool(np.nanmax(self.high) - np.nanmin(self.low) < 1e-9)


def course_of(groups: Sequence[GroupSeries]) -> Course | None:
    """Return the course of the weights that held, over the runs of an arm; None without a whole run.

    Args:
        groups: one of each run; what is longer than the shortest is cut off.
    """
    groups = [g for g in groups if g.levels == groups[0].levels]
    length = min((len(g.iteration) for g in groups), default=0)
    if not length:
        return None
    held = np.stack([g.previous_weights[:length] for g in groups])  # [runs, I, K]
    bins = np.array_split(np.arange(length), min(length, MAX_POINTS))
    with np.errstate(all="ignore"):
        binned = np.stack([_mean(held[:, chosen]) for chosen in bins], axis=1)  # [runs, P, K]
    kept = np.isfinite(binned).all(axis=(0, 2))
    binned = binned[:, kept]
    if not binned.size:
        return None
    ends = np.array([float(groups[0].iteration[chosen[-1]]) for chosen in bins])[kept]
    return Course(groups[0].levels, ends, binned.mean(axis=0), binned.min(axis=0), binned.max(axis=0))


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of what is known, ``[runs, n, K] -> [runs, K]``."""
    known = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(axis=1)
    return np.asarray(total / known.sum(axis=1), dtype=np.float64)


def course_drawings(found: Mapping[str, Course], colors: Mapping[str, str]) -> dict[str, Drawing]:
    """Draw by panel the weights over the iterations, all on one scale: lines the mean, bands the seeds' range."""
    if not found:
        return {}
    ends = [float(end) for course in found.values() for end in (course.low.min(), course.high.max())]
    weights = scale_of(ends, 1.0, narrowest=0.1)
    return {name: _drawing(name, course, weights, colors) for name, course in found.items()}


def _drawing(name: str, course: Course, weights: Scale, colors: Mapping[str, str]) -> Drawing:
    last = float(course.iteration[-1])
    said = ", ".join(
        f"{level} {weight:.2f}" for level, weight in zip(course.levels, course.mean[-1], strict=True)
    )
    label = f"{name}: weights over the iterations; at the end {said}"
    drawing = Drawing(label, Scale(0.0, last, round_ticks(0.0, last), 0.0, 100.0), HEIGHT + AXIS)
    texts = []
    for value in weights.ticks:
        y = HEIGHT * (weights.high - value) / (weights.high - weights.low)
        if 8 < y < HEIGHT - 2:
            drawing.line(0, y, last, y, "zero" if value == 1.0 else "grid")
            texts.append((y - 3, weights.text(value)))
    # Stretched over all of the width; strokes keep theirs.
    box = {
        "width": "100%",
        "height": f"{HEIGHT:g}",
        "viewBox": "0 0 1000 1000",
        "preserveAspectRatio": "none",
    }
    curves = ET.SubElement(drawing.svg, "svg", box)

    def curve(tag: str, kind: str, level: int, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
        places = np.stack([1000 * x / last, 1000 * (weights.high - y) / (weights.high - weights.low)], axis=1)
        own = f"--own:{colors[course.levels[level]]}"
        written = " ".join(f"{a:.1f},{b:.1f}" for a, b in places.tolist())
        ET.SubElement(curves, tag, {"class": kind, "style": own, "points": written})

    levels = range(len(course.levels))
    for k in levels:
        there_and_back = np.concatenate([course.high[:, k], course.low[::-1, k]])
        curve(
            "polygon", "band", k, np.concatenate([course.iteration, course.iteration[::-1]]), there_and_back
        )
    for k in levels:
        curve("polyline", "course", k, course.iteration, course.mean[:, k])
    for y, words in texts:
        drawing.text(0, y, words, "tick")
    for value in drawing.scale.ticks:
        drawing.tick(value, HEIGHT + 1, f"{value / 1000:g}k" if value >= 1000 else f"{value:g}")
    return drawing
