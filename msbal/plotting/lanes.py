"""Describe panels with a lane for each level: values that jump at every interval would hide each other on one scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from msbal.plotting.panel import Curve, LevelLook, Panel
from msbal.plotting.series import Floats

CROWDED = 100
"""From so many intervals on, steps blur to a band, and their moving average is drawn as well."""

FILLED = 0.78
"""The part of a lane that values fill; the rest keeps lanes apart."""


@dataclass(frozen=True)
class Steps:
    """What one run adds to the lanes.

    Attributes:
        run: its place in the list of runs.
        name, dash: what the names of its curves end in; a key of `style.DASHES`.
        x: ``[N]``, where each step ends.
        values: by level, ``[N]``.
    """

    run: int
    name: str
    dash: str
    x: Floats
    values: Mapping[str, Floats]


def describe_lanes(
    panel: Panel,
    steps: Sequence[Steps],
    scale: tuple[float, float, float],
    levels: Mapping[str, LevelLook],
    *,
    mean: bool,
) -> Panel:
    """Return `panel` with a lane for each level, the finest at the top, all to one scale.

    Args:
        scale: the value at a lane's lower edge, at its line, from which values are filled, and at its upper edge.
            What lies beyond the edges is cut off there.
        mean: whether a crowded lane also shows the moving average; that of several runs shows nothing else.
    """
    low, base, high = scale
    number, several = len(levels), len(steps) > 1
    crowded = max(len(one.x) for one in steps) > CROWDED

    def height(lane: int, value: Any) -> Any:
        return number - 1 - lane + (np.clip(value, low, high) - low) * FILLED / (high - low)

    curves = []
    for lane, (level, look) in enumerate(levels.items()):
        for one in steps:
            if level not in one.values:
                continue
            y = one.values[level]
            curve = Curve(
                look.label + one.name, look.color, one.x, height(lane, y), level=level, run=one.run, dash=one.dash,
                steps=True, marker="", values=y, base=None if several else float(height(lane, base)),
                width=0.4 if crowded else 1.0, alpha=(0.45 if mean else 0.85) if crowded else 1.0,
            )  # fmt: skip
            average = replace(
                curve, name=f"{look.label} mean{one.name}", steps=False, base=None, width=1.3 if several else 1.6,
                alpha=1.0, span=max(1, len(one.x) // 20) if crowded else 1, if_smoothed=not crowded,
            )  # fmt: skip
            curves += [curve] * (not (several and crowded and mean)) + [average] * mean
    # The scale stands beside every lane where there is room, else beside the topmost, and there half of it.
    values = [value for value in dict.fromkeys(scale) if value == base or abs(value - base) > 1e-9]
    if number > 3:
        values = [base, high] if high - base >= base - low else [low, base]
    noted = mean and crowded
    edge = (1 - FILLED) / 2
    return replace(
        panel,
        curves=curves,
        range=(-edge, number - edge + (0.09 * number if noted else 0.0)),
        rules=[float(height(lane, base)) for lane in range(number)],
        ticks={
            float(height(lane, base)): look.label.replace(" (", "\n(")
            for lane, look in enumerate(levels.values())
        },
        tick_color={look.label.replace(" (", "\n("): look.color for look in levels.values()},
        right={
            float(height(lane, value)): f"{value:.3g}".replace("-", "−")
            for lane in range(number if number <= 3 else 1)
            for value in values
        },
        note="line: mean of {span} intervals" if noted else "",
        note_at=number - edge,
        tall=1.1,
    )
