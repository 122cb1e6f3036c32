"""Each level's part of the loss, as it is and as backward saw it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from msbal.plotting.panels.panel import Curves, Look, Panel
from msbal.plotting.series import GroupSeries, moving_average

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def panels(group: str, members: Sequence[GroupSeries]) -> list[Panel]:
    """The shares, and those of the weighted loss where any run's weights ever left 1."""
    balanced = any((member.previous_weights[~member.missing] != 1).any() for member in members)
    titles = {
        False: ("Share of the loss", "Part of $\\sum L_i$"),
        True: ("Share of the weighted loss", "Part of $\\sum w_i L_i$"),
    }
    return [
        Panel(
            what="share",
            kind="share",
            key="share-weighted" if weighted else "share",
            group=group,
            title=title,
            ylabel=ylabel,
            draw=partial(_draw, weighted),
            has_data=partial(_has_data, weighted),
            overlays=False,
        )
        for weighted, (title, ylabel) in titles.items()
        if balanced or not weighted
    ]


def _has_data(weighted: bool, group: GroupSeries) -> bool:
    return bool(np.isfinite(group.share(weighted=weighted)).any())


def _draw(weighted: bool, ax: Axes, curves: Sequence[Curves], look: Look) -> None:
    (run,) = curves
    group = run.group
    shares = moving_average(group.share(weighted=weighted), look.smooth)
    x = group.iteration.astype(np.float64)
    if len(x) == 1:  # one interval has no width: show it over the iterations that it is about
        x, shares = np.array([group.start, x[0]], dtype=np.float64), np.repeat(shares, 2, axis=0)
    tops = np.cumsum(shares, axis=1)
    bottoms = tops - shares
    for place, level in enumerate(group.levels):
        ax.fill_between(
            x, bottoms[:, place], tops[:, place], color=look.level_color[level], linewidth=0, alpha=0.85
        )
    ax.set_ylim(0, 1)
    ax.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25%", "50%", "75%", "100%"])
    ax.set_axisbelow(False)
    ax.grid(True, color="white", alpha=0.4)
