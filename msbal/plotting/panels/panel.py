"""What a panel is, and the pieces that several panels draw with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from msbal.plotting.series import Bools, Floats, GroupSeries, moving_average
from msbal.plotting.style import Style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEW_POINTS = 25
"""Up to so many intervals each is marked: a line alone hides that it has three points."""


@dataclass(frozen=True)
class Curves:
    """One run's share in a panel.

    Attributes:
        group: its intervals.
        peers: the same group of every run in the figure, this one among them: panels that scale their own
            curves scale them for all.
        dash: the line style that tells overlaid runs apart.
    """

    group: GroupSeries
    peers: tuple[GroupSeries, ...]
    dash: Any = "solid"


@dataclass(frozen=True)
class Look:
    """How to draw, the same for all panels of a figure.

    Attributes:
        level_color: of every level of every run.
        action_color: of every action of every run.
        smooth: intervals in the moving average; 1 draws the values alone.
    """

    style: Style
    level_color: Mapping[str, str]
    action_color: Mapping[str, str]
    smooth: int = 1


@dataclass(frozen=True)
class Panel:
    """One set of axes.

    Attributes:
        what: the choice of ``--what`` that asks for it.
        kind: which drawing of the page it is; ``key`` without the term.
        key: unique among a figure's panels, and its file's stem.
        group: the group of levels that it shows.
        title: without the group.
        ylabel: with the unit.
        draw: fills the axes from one run or several.
        has_data: whether a run's group has something to show here.
        overlays: False where curves of two runs on the same axes would say nothing (stacked areas).
        legend: whether the curves are the levels' and need the legend of their colours.
        height: in rows.
        term: the loss term that it shows; None for all of them.
    """

    what: str
    kind: str
    key: str
    group: str
    title: str
    ylabel: str
    draw: Callable[[Axes, Sequence[Curves], Look], None]
    has_data: Callable[[GroupSeries], bool] = lambda group: True
    overlays: bool = True
    legend: bool = True
    height: float = 1.0
    term: str | None = None


def draw_curve(ax: Axes, x: Any, y: Floats, color: str, dash: Any, look: Look) -> None:
    """One line; behind it, faint, the values themselves where it is a moving average."""
    style = look.style
    known = int(np.isfinite(y).sum())
    marker = "o" if known <= FEW_POINTS else ""
    if look.smooth > 1:
        ax.plot(x, y, color=color, linewidth=style.line * 0.6, alpha=style.raw_alpha)
        y, marker = moving_average(y, look.smooth), ""
    ax.plot(
        x, y, color=color, linestyle=dash, linewidth=style.line, marker=marker, markersize=style.marker,
        solid_joinstyle="round", alpha=0.92,
    )  # fmt: skip
    if not marker and (alone := isolated(y)).any():
        ax.plot(
            np.asarray(x)[alone], y[alone], color=color, linestyle="", marker="o", markersize=style.marker
        )


def isolated(y: Floats) -> Bools:
    """[I] -> [I], the values without a neighbour, which no line would show."""
    known = np.concatenate([[False], np.isfinite(y), [False]])
    return np.asarray(known[1:-1] & ~known[:-2] & ~known[2:], dtype=np.bool_)


def draw_levels(ax: Axes, curves: Curves, values: Floats, look: Look) -> None:
    """One line a level. ``values``: [I, K]. The finest level lies on top where lines cross."""
    for place in reversed(range(len(curves.group.levels))):
        level = curves.group.levels[place]
        draw_curve(
            ax, curves.group.iteration, values[:, place], look.level_color[level], curves.dash, look
        )  # fmt: skip
