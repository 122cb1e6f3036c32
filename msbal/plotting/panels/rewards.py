"""The rewards of eq 6 and their moving average: whether the policy is right more often than not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from msbal.plotting.panels.panel import Curves, Look, Panel
from msbal.plotting.series import GroupSeries, moving_average

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WINDOW = 25
"""Intervals in the moving average, where ``--smooth`` names none."""

COLOR, GOOD, BAD = "#333333", "#2c7fb8", "#d95f0e"


def panels(group: str) -> list[Panel]:
    return [
        Panel(
            what="rewards",
            kind="rewards",
            key="rewards",
            group=group,
            title="Rewards: +1 where the summed loss fell",
            ylabel="Reward $R$",
            draw=_draw,
            has_data=has_rewards,
            legend=False,
        )
    ]


def has_rewards(group: GroupSeries) -> bool:
    return bool(np.isfinite(group.reward).any())


def window(group: GroupSeries, smooth: int) -> int:
    """Intervals to average over: the user's, else at most a fifth of the run."""
    return smooth if smooth > 1 else max(1, min(WINDOW, len(group.reward) // 5))


def _draw(ax: Axes, curves: Sequence[Curves], look: Look) -> None:
    style = look.style
    for run in curves:
        group, rewards = run.group, run.group.reward
        width = float(np.clip(style.line * 300 / len(rewards), 0.2, style.line * 1.6))
        if len(curves) == 1:  # every single reward, as a tick at its edge
            for sign, color in ((1, GOOD), (-1, BAD)):
                x = group.iteration[rewards == sign]
                ax.vlines(x, sign * 1.02, sign * 1.2, color=color, linewidth=width, alpha=0.8)
        span = window(group, look.smooth)
        ax.plot(
            group.iteration, moving_average(rewards, span), color=COLOR, linestyle=run.dash,
            linewidth=style.line * 1.2, marker="o" if span == 1 else "", markersize=style.marker,
        )  # fmt: skip
    spans = sorted({window(run.group, look.smooth) for run in curves})
    if spans != [1]:
        ax.annotate(
            f"line: mean of {'/'.join(map(str, spans))} intervals", (1, 0.1), xycoords="axes fraction",
            ha="right", va="bottom", color="#555555", fontsize="x-small",
        )  # fmt: skip
    ax.axhline(0, color="#9a9a9a", linewidth=style.line * 0.6, zorder=1)
    ax.set_yticks([-1, 0, 1], ["−1", "0", "+1"])
    ax.set_ylim(-1.25, 1.25)
