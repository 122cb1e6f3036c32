"""The weights of eq 1 as steps, a lane a level: each weight holds for a whole interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from msbal.plotting.panels.lanes import draw_lanes
from msbal.plotting.panels.panel import Curves, Look, Panel
from msbal.plotting.series import Floats, GroupSeries

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def panels(group: str) -> list[Panel]:
    return [
        Panel(
            what="weights",
            kind="weights",
            key="weights",
            group=group,
            title="Level weights $w_i$",
            ylabel="",
            draw=_draw,
            overlays=False,
            legend=False,
            height=1.1,
        )
    ]


def steps(group: GroupSeries) -> tuple[Floats, Floats]:
    """x [I + 1] and y [I + 1, K] of steps: from x[n] to x[n + 1] the weight is y[n].

    The first step is what held before any decision; the last point is the newest decision.
    """
    x = np.concatenate([[group.start], group.iteration]).astype(np.float64)
    return x, np.concatenate([group.previous_weights[:1], group.weights])


def _draw(ax: Axes, curves: Sequence[Curves], look: Look) -> None:
    (run,) = curves
    x, y = steps(run.group)
    # Never so fine that equal weights, off by rounding, would look like a decision.
    everyone = [steps(peer)[1] for peer in run.peers]
    low = min(float(np.nanmin(weights, initial=1.0)) for weights in everyone)
    high = max(float(np.nanmax(weights, initial=1.1)) for weights in everyone)
    low, high = float(np.floor(low * 20) / 20), float(np.ceil(high * 20) / 20)
    draw_lanes(ax, run.group, x, y, base=1.0, low=low, high=high, look=look)
