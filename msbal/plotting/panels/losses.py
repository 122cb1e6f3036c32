"""The paper's Fig. 1: each term's loss by level, a point every alpha iterations."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from msbal.plotting.panels.panel import Curves, Look, Panel, draw_levels
from msbal.plotting.series import GroupSeries

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TERM_TITLES = {
    "cls": "Classification loss",
    "bbox": "Regression loss",
    "reg": "Regression loss",
    "centerness": "Centerness loss",
    "objectness": "Objectness loss",
    "obj": "Objectness loss",
    "conf": "Confidence loss",
    "mask": "Mask loss",
    "loss": "Loss",  # what `msbal replay` calls the only term of a plain CSV
}


def panels(group: str, terms: Sequence[str]) -> list[Panel]:
    """One panel a term; one of the whole loss where the records name no terms."""
    names: list[str | None] = [*terms] or [None]
    return [
        Panel(
            what="losses",
            kind="loss",
            key=f"loss-{term}" if term else "loss",
            group=group,
            title=TERM_TITLES.get(term, f"{term} loss") if term else "Loss",
            ylabel="Mean loss per iteration",
            draw=partial(_draw, term),
            has_data=partial(_has_data, term),
            term=term,
        )
        for term in names
    ]


def _has_data(term: str | None, group: GroupSeries) -> bool:
    return bool(np.isfinite(group.mean_loss(term)).any())


def _draw(term: str | None, ax: Axes, curves: Sequence[Curves], look: Look) -> None:
    for run in curves:
        draw_levels(ax, run, run.group.mean_loss(term), look)
        _mark_nonfinite(ax, run.group, term, look)
    if all(np.nanmin(run.group.mean_loss(term), initial=0.0) >= 0 for run in curves):
        ax.set_ylim(bottom=0)


def _mark_nonfinite(ax: Axes, group: GroupSeries, term: str | None, look: Look) -> None:
    """A cross at the upper edge for each NaN or infinite loss, in its level's colour: it is in no sum."""
    losses = [
        loss for loss in group.nonfinite if term in (None, loss.term) and loss.level in look.level_color
    ]
    if losses:
        ax.scatter(
            [loss.iteration for loss in losses],
            [1.0] * len(losses),
            c=[look.level_color[loss.level] for loss in losses],
            marker="x",
            s=(look.style.marker * 2) ** 2,
            linewidths=look.style.line,
            transform=ax.get_xaxis_transform(),
            clip_on=False,
            zorder=5,
        )
