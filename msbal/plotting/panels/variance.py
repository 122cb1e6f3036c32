"""The statistics behind AVW: the variance of eq 3 and its reduction, eq 4."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from msbal.plotting.panels.lanes import draw_lanes
from msbal.plotting.panels.panel import Curves, Look, Panel, draw_levels

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def panels(group: str) -> list[Panel]:
    return [
        Panel(
            what="variance",
            kind="variance",
            key="variance",
            group=group,
            title="Variance of the loss in an interval",
            ylabel="Var$_i$",
            draw=_draw_variance,
        ),
        Panel(
            what="variance",
            kind="reduction",
            key="variance-reduction",
            group=group,
            title="Rate of variance reduction $r_i$",
            ylabel="",
            draw=_draw_reduction,
            overlays=False,
            legend=False,
            height=1.1,
        ),
    ]


def _draw_variance(ax: Axes, curves: Sequence[Curves], look: Look) -> None:
    """On a log scale: levels lie orders of magnitude apart. A level that never varied has no curve."""
    drawn = False
    for run in curves:
        values = np.where(run.group.variance > 0, run.group.variance, np.nan)
        drawn = drawn or bool(np.isfinite(values).any())
        draw_levels(ax, run, values, look)
    if drawn:
        ax.set_yscale("log")


def _draw_reduction(ax: Axes, curves: Sequence[Curves], look: Look) -> None:
    """r is at most 1 and has no lower bound: the lanes end where one value in a hundred lies beyond."""
    (run,) = curves
    group = run.group
    x = np.concatenate([[group.start], group.iteration]).astype(np.float64)
    # The value of an interval stands over that interval, not behind it.
    y = np.concatenate([group.variance_reduction, group.variance_reduction[-1:]])
    everyone = np.concatenate([peer.variance_reduction.ravel() for peer in run.peers])
    known = everyone[np.isfinite(everyone)]
    low, high = np.percentile(known, (1, 99)) if known.size else (-1.0, 1.0)
    low, high = min(-0.1, float(np.floor(low * 10) / 10)), max(0.1, float(np.ceil(high * 10) / 10))
    draw_lanes(ax, group, x, y, base=0.0, low=low, high=min(high, 1.0), look=look, mean=False)
