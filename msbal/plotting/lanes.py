"""Lanes, one a level: for values that jump at every interval, where lines on one scale would hide each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from msbal.plotting.panel import Curve, Hold, Panel
from msbal.plotting.series import Floats

CROWDED = 100
"""From so many intervals on, steps blur to a band, and their moving average is drawn as well."""

FILLED = 0.78
"""The part of a lane that values fill; the rest keeps lanes apart."""


def describe_lanes(
    panel: Panel,
    run: int,
    x: Floats,
    y: Floats,
    hold: Hold,
    scale: tuple[float, float, float],
    colors: Mapping[str, str],
    *,
    mean: bool,
) -> Panel:
    """Return `panel` with a lane for each level, the finest at the top, all to one scale.

    Args:
        x, y: ``[N]`` and ``[N, K]``, the steps.
        scale: the value at a lane's lower edge, at its line, from which values are filled, and at its upper edge.
            What lies beyond the edges is cut off there.
        colors: of the K levels.
        mean: whether a crowded lane also shows the moving average.
    """
    low, base, high = scale
    number, crowded = len(colors), len(x) > CROWDED

    def height(lane: int, value: Any) -> Any:
        return number - 1 - lane + (np.clip(value, low, high) - low) * FILLED / (high - low)

    curves = []
    for lane, (level, color) in enumerate(colors.items()):
        curve = Curve(
            level, color, x, height(lane, y[:, lane]), level=level, run=run, hold=hold, values=y[:, lane],
            base=float(height(lane, base)), width=0.4 if crowded else 1.0,
            alpha=(0.45 if mean else 0.85) if crowded else 1.0,
        )  # fmt: skip
        curves.append(curve)
        if mean:
            span = max(1, len(x) // 20) if crowded else 1
            curves.append(
                replace(
                    curve, name=f"{level} mean", hold="", base=None, width=1.6, alpha=1.0, span=span,
                    if_smoothed=not crowded,
                )
            )  # fmt: skip
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
        ticks={float(height(lane, base)): level for lane, level in enumerate(colors)},
        tick_color=colors,
        right={
            float(height(lane, value)): f"{value:.3g}".replace("-", "−")
            for lane in range(number if number <= 3 else 1)
            for value in values
        },
        note="line: mean of {span} intervals" if noted else "",
        note_at=number - edge,
        tall=1.1,
    )
