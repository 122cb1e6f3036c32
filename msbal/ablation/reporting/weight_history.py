"""The weights of an arm over the iterations, averaged over its seeds, and their drawing on the page."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msbal.ablation.reporting.svg import AXIS, Drawing, Scale, round_ticks
from msbal.plotting.series import GroupSeries

MAX_POINTS = 60
"""Points along a curve; more intervals are averaged to so many."""
LANE, FILLED = 46.0, 0.64  # pixels per level, and the share of them that weights fill


@dataclass(frozen=True)
class History:
    """The weights of one arm over the iterations, averaged over its seeds. P points, K levels.

    Attributes:
        start, end: ``[P]``, the iterations between which the weights were in force.
        mean, low, high: ``[P, K]`` over the seeds.
    """

    levels: tuple[str, ...]
    start: NDArray[np.float64]
    end: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @property
    def constant(self) -> bool:
        """Whether no weight ever changes."""
        return bool(np.nanmax(self.high) - np.nanmin(self.low) < 1e-9)


def history_of(groups: Sequence[GroupSeries]) -> History | None:
    """Return the history of the weights in force in the runs of an arm; None without a whole run.

    Args:
        groups: one of each run; they are cut to the length of the shortest.
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
    ends = np.array([float(groups[0].iteration[chosen[-1]]) for chosen in bins])
    starts = np.array([float(groups[0].start), *ends[:-1]])
    return History(
        groups[0].levels,
        starts[kept],
        ends[kept],
        binned.mean(axis=0),
        binned.min(axis=0),
        binned.max(axis=0),
    )


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of what is known, ``[runs, n, K] -> [runs, K]``."""
    known = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(axis=1)
    return np.asarray(total / known.sum(axis=1), dtype=np.float64)


def history_drawings(found: Mapping[str, History], colors: Mapping[str, str]) -> dict[str, Drawing]:
    """Draw each arm's weights over the iterations, all on one scale: the mean as steps, the seeds' range as a band."""
    if not found:
        return {}
    ends = [float(end) for history in found.values() for end in (history.low.min(), history.high.max())]
    low, high = min(1.0, *ends), max(1.1, *ends)
    return {name: _drawing(name, history, low, high, colors) for name, history in found.items()}


def _drawing(name: str, history: History, low: float, high: float, colors: Mapping[str, str]) -> Drawing:
    """Draw a lane for each level, since the levels' bands would hide each other in one."""
    last, bottom = float(history.end[-1]), LANE * len(history.levels)
    means = ", ".join(f"{k} {w:.2f}" for k, w in zip(history.levels, history.mean.mean(axis=0), strict=True))
    drawing = Drawing(
        f"{name}: weights over the iterations; on average {means}",
        Scale(0.0, last, round_ticks(0.0, last), 0.0, 100.0), bottom + AXIS,
        f"iteration (each level: weights from {low:.2f} to {high:.2f})",
    )  # fmt: skip
    for value in drawing.scale.ticks:
        drawing.line(value, 0, value, bottom, "grid")
        drawing.tick(value, bottom + 1, f"{value / 1000:g}k" if value >= 1000 else f"{value:g}")
    # Stretched over all of the width; strokes keep theirs.
    box = {
        "width": "100%",
        "height": f"{bottom:g}",
        "viewBox": f"0 0 1000 {bottom:g}",
        "preserveAspectRatio": "none",
    }
    curves = ET.SubElement(drawing.svg, "svg", box)
    x = np.stack([history.start, history.end], axis=1).ravel()

    def curve(tag: str, kind: str, lane: int, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
        height = LANE * (lane + 1 - FILLED * (y - low) / (high - low))
        written = " ".join(f"{1000 * a / last:.1f},{b:.1f}" for a, b in zip(x, height, strict=True))
        own = f"--own:{colors[history.levels[lane]]}"
        ET.SubElement(curves, tag, {"class": kind, "style": own, "points": written})

    for k, level in enumerate(history.levels):
        one = LANE * (k + 1 - FILLED * (1 - low) / (high - low))
        drawing.line(0, one, last, one, "zero")
        above, below, mean = (np.repeat(y[:, k], 2) for y in (history.high, history.low, history.mean))
        curve("polygon", "band", k, np.concatenate([x, x[::-1]]), np.concatenate([above, below[::-1]]))
        curve("polyline", "history", k, x, mean)
        drawing.text(0, LANE * k + 14, level, "name small")
    return drawing
