"""What stands in one set of axes, described once and drawn twice: by `matplotlib_panel` and by `plotly_panel`.

Shape legend: N points of a curve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from msbal.plotting.series import Floats

Hold = Literal["", "before", "after"]

FEW_POINTS = 25
"""Up to so many points of a curve are marked."""


@dataclass(frozen=True)
class Curve:
    """Values over the iterations: a line, steps, or an area of a stack.

    Attributes:
        name, color: what the hover label calls it; "#rrggbb".
        x, y: ``[N]``; a NaN in `y` breaks the curve.
        level: the level that it belongs to, which a reader of the page can hide; empty for none.
        run: the place of its run in the list of runs.
        dash: a key of `style.DASHES`, where line styles tell runs apart.
        width: in line widths of the style.
        alpha: opacity.
        hold: empty joins the points; ``before`` holds a value over the interval that ends at its x, ``after`` from
            its x to the next.
        base: fill between the curve and this height.
        stack: fill between the curve and the stacked curves before it, on which it stands.
        values: ``[N]``, what the hover label tells where `y` is only a height.
        span: intervals in its moving average, unless the reader asks for another number; 0 never averages.
        if_smoothed: draw it only where the reader asks for a moving average (the values behind their average).
        count: ``[N]``, the iterations of each interval, where `y` is a mean of them; the page offers their sum.
    """

    name: str
    color: str
    x: Floats
    y: Floats
    level: str = ""
    run: int = 0
    dash: str = "solid"
    width: float = 1.0
    alpha: float = 1.0
    hold: Hold = ""
    base: float | None = None
    stack: bool = False
    values: Floats | None = None
    span: int = 0
    if_smoothed: bool = False
    count: Floats | None = None

    @property
    def marked(self) -> bool:
        """Whether each point has a mark: a line alone hides that it has three points."""
        return not self.hold and not self.if_smoothed and int(np.isfinite(self.y).sum()) <= FEW_POINTS


@dataclass(frozen=True)
class Marks:
    """Single events: upright ticks in a row, or crosses at the upper edge.

    Attributes:
        x: ``[N]``.
        y, height: the middle of the ticks and their height; None puts crosses at the upper edge.
        texts: what the hover label tells of each.
    """

    name: str
    color: str
    x: Floats
    texts: Sequence[str]
    y: float | None = None
    height: float = 0.0
    alpha: float = 1.0
    level: str = ""
    run: int = 0


@dataclass(frozen=True)
class Panel:
    """One set of axes.

    Attributes:
        key: unique among the panels of a group, and the stem of its file.
        group: the group of levels that it shows.
        title, says: without the group; a line that explains it on the page.
        ylabel: with the unit. Titles and labels may end in ``$mathtext$``, which the page leaves out.
        runs: the places of the runs in it.
        x: where the iterations start and end.
        curves, marks: in the order of the hover label, the finest level first.
        log: whether the scale is logarithmic; the page offers it for any panel without a `range`.
        range: of y; None as the values need, from 0 where it is linear.
        ticks, right: by height, the labels on the left and on the right; None for numbers as the values need.
        tick_color: of labels on the left.
        rules: heights of thin lines across.
        hover: how to write a value, as in d3-format.
        note: a few words on how to read it, on the right in the figure, which stand on the height `note_at`; ``{span}``
            is the number of intervals in the moving averages.
        legend: the levels' colours, where the curves need a legend of them.
        tall: its height in rows of the figure.
    """

    key: str
    title: str
    says: str
    ylabel: str = ""
    curves: Sequence[Curve] = ()
    marks: Sequence[Marks] = ()
    group: str = ""
    runs: tuple[int, ...] = ()
    x: tuple[float, float] = (0.0, 1.0)
    log: bool = False
    range: tuple[float, float] | None = None
    ticks: Mapping[float, str] | None = None
    right: Mapping[float, str] = field(default_factory=dict)
    tick_color: Mapping[str, str] = field(default_factory=dict)
    rules: Sequence[float] = ()
    hover: str = ".4~g"
    note: str = ""
    note_at: float = 0.0
    legend: Mapping[str, str] = field(default_factory=dict)
    tall: float = 1.0
