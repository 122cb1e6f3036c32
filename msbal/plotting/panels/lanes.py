"""One lane a level: for values that jump at every interval, where lines on one scale would hide each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from msbal.plotting.panels.panel import Look
from msbal.plotting.series import Floats, GroupSeries, moving_average

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MEAN_FROM = 100
"""From so many intervals on a lane also has its moving average: steps thinner than a pixel blur to a band."""

GAP = 0.22
"""Free part of a lane."""


def draw_lanes(
    ax: Axes,
    group: GroupSeries,
    x: Floats,
    y: Floats,
    *,
    base: float,
    low: float,
    high: float,
    look: Look,
    mean: bool = True,
) -> None:
    """Steps from ``base`` to the value, filled, the finest level's lane at the top, all lanes to one scale.

    Args:
        x: [N], where a value begins to hold.
        y: [N, K]; row n holds from x[n] to x[n + 1].
        base: drawn as each lane's line, between ``low`` and ``high``, the values at a lane's edges. What
            lies beyond them is cut off there.
        mean: whether a crowded lane also shows the moving average.
    """
    style, number = look.style, len(group.levels)
    scale = (1 - GAP) / (high - low)
    span = look.smooth if look.smooth > 1 else max(1, len(x) // 20)
    crowded = len(x) > MEAN_FROM or look.smooth > 1
    for place, level in enumerate(group.levels):
        color = look.level_color[level]
        floor = number - 1 - place
        line = floor + (base - low) * scale
        # Corners spelled out: a fill with step="post" would lose the last step before a gap.
        corners = np.repeat(x, 2)[1:]
        heights = floor + (np.repeat(np.clip(y[:, place], low, high), 2)[:-1] - low) * scale
        ax.axhline(line, color="#b5b5b5", linewidth=0.5, zorder=1)
        alpha = (0.5 if mean else 0.85) if crowded else 0.3
        ax.fill_between(corners, line, heights, color=color, linewidth=0, alpha=alpha)
        if crowded and mean:
            average = moving_average(np.clip(y[:, place], low, high), span)
            ax.plot(x, floor + (average - low) * scale, color=color, linewidth=style.line * 1.3, zorder=3)
        elif not crowded:
            ax.plot(corners, heights, color=color, linewidth=style.line, zorder=3)
    ax.set_yticks([floor + (base - low) * scale for floor in reversed(range(number))], group.levels)
    for label, level in zip(ax.get_yticklabels(), group.levels, strict=True):
        label.set_color(look.level_color[level])
    ax.tick_params(axis="y", length=0)
    ax.grid(False, axis="y")
    room = 0.09 * number if crowded and mean else 0.0  # for the note
    ax.set_ylim(-GAP / 2, number - GAP / 2 + room)
    _scale(ax, number, base, low, high, scale)
    if crowded and mean:
        ax.annotate(
            f"line: mean of {span} intervals", (1, 1), xycoords="axes fraction", ha="right", va="top",
            color="#555555", fontsize="x-small",
        )  # fmt: skip


def _scale(ax: Axes, number: int, base: float, low: float, high: float, factor: float) -> None:
    """The lanes' common scale on the right; where lanes are thin, beside the topmost alone."""
    right = ax.secondary_yaxis("right")
    floors = range(number) if number <= 3 else [number - 1]
    values = [
        value for value in dict.fromkeys((low, base, high)) if value == base or abs(value - base) > 1e-9
    ]
    if number > 3:
        values = [base, high] if high - base >= base - low else [low, base]
    right.set_yticks(
        [floor + (value - low) * factor for floor in floors for value in values],
        [f"{value:.3g}".replace("-", "−") for _ in floors for value in values],
        fontsize="x-small",
    )
    right.tick_params(axis="y", length=0, pad=2)  # a tick before "1" reads as a minus
    right.spines["right"].set_visible(False)
