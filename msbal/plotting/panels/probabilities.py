"""The policy of eq 7, and under it every action that was taken, with what it earned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from msbal.plotting.panels.panel import Curves, Look, Panel
from msbal.plotting.series import GroupSeries

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROW = 0.11
"""Height of an action's row under the curves, in units of probability."""


def panels(group: str) -> list[Panel]:
    return [
        Panel(
            what="probabilities",
            kind="probabilities",
            key="probabilities",
            group=group,
            title="Action probabilities and actions taken",
            ylabel="",
            draw=_draw,
            has_data=has_choice,
            overlays=False,
            legend=False,
            height=1.25,
        )
    ]


def has_choice(group: GroupSeries) -> bool:
    return bool(group.actions) and bool(np.isfinite(group.probabilities).any())


def _draw(ax: Axes, curves: Sequence[Curves], look: Look) -> None:
    (run,) = curves
    group, style = run.group, look.style
    top = _ceiling(group)
    row = ROW * top
    earned = group.outcome()
    taken = np.array(group.action)
    for place, action in enumerate(group.actions):
        color = look.action_color[action]
        ax.plot(
            group.iteration, group.probabilities[:, place], color=color, linewidth=style.line * 1.3,
            marker="o" if len(group.iteration) == 1 else "", markersize=style.marker,
        )  # fmt: skip
        y = -(place + 1) * row
        for good, alpha in ((True, 1.0), (False, 0.3)):
            chosen = (taken == action) & ((earned > 0) == good)
            ax.vlines(
                group.iteration[chosen], y - row * 0.36, y + row * 0.36, color=color, alpha=alpha,
                linewidth=_tick_width(len(group.iteration), style.line),
            )  # fmt: skip
    rows = [-(place + 1) * row for place in range(len(group.actions))]
    values = [value for value in (0, 0.2, 0.4, 0.6, 0.8, 1.0) if value <= top]
    ax.set_yticks([*values, *rows], [*(f"{value:g}" for value in values), *group.actions])
    for label, action in zip(ax.get_yticklabels()[len(values) :], group.actions, strict=True):
        label.set_color(look.action_color[action])
    for line in ax.yaxis.get_gridlines()[len(values) :]:
        line.set_visible(False)
    ax.axhline(0, color="#555555", linewidth=0.5)
    ax.set_ylim(rows[-1] - row * 0.7, top)
    ax.annotate(
        "dark: rewarded, light: not (yet)", (1, 0), (0, 1), xycoords=("axes fraction", "data"),
        textcoords="offset points", ha="right", va="bottom", color="#555555",
        fontsize="x-small", zorder=6,
    )  # fmt: skip


def _ceiling(group: GroupSeries) -> float:
    """The curves' upper edge: the next fifth above them."""
    highest = float(np.nanmax(group.probabilities))
    return min(1.0, (math.floor(highest * 5 + 0.25) + 1) / 5)


def _tick_width(number: int, line: float) -> float:
    return float(np.clip(line * 300 / max(number, 1), 0.25, line * 1.6))
