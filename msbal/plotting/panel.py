"""The contents of one set of axes, described once and drawn by both `matplotlib_panel` and `plotly_panel`.

Shape legend: N points of a curve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from msbal.plotting.series import Bools, Floats

FEW_POINTS = 25
"""Up to so many points of a curve have a mark each."""

SOME_MARKS = 8
"""Marks on a longer curve of a level, which tell it from those of other levels without its colour."""


@dataclass(frozen=True)
class LevelLook:
    """How a level looks in every panel.

    Attributes:
        label: its name, and whether it has no boxes.
        color, marker: "#rrggbb"; a key of `style.MARKERS`.
    """

    label: str
    color: str
    marker: str


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
        steps: hold each value over the interval that ends at its x, instead of joining the points.
        marker: a key of `style.MARKERS`; empty for none.
        label: the text at the curve's end.
        base: fill between the curve and this height.
        stack: fill between the curve and the stacked curves before it, on which it stands.
        values: ``[N]``, what the hover label tells where `y` is only a height.
        span: intervals in its moving average, unless the reader asks for another number; 0 never averages.
        if_smoothed: draw it only where the reader asks for a moving average (the values behind their average).
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
    steps: bool = False
    marker: str = "circle"
    label: str = ""
    base: float | None = None
    stack: bool = False
    values: Floats | None = None
    span: int = 0
    if_smoothed: bool = False

    @property
    def marks(self) -> int:
        """The number of marks on it: one for each point where there are few, which a line alone would hide."""
        if self.steps or self.stack or self.if_smoothed or not self.marker:
            return 0
        known = int(np.isfinite(self.y).sum())
        return known if known <= FEW_POINTS else SOME_MARKS if self.level else 0


@dataclass(frozen=True)
class Marks:
    """Single events: bars in a row, each over an interval, or crosses at the upper edge.

    Attributes:
        x: ``[N]``, the places of the crosses, or where the bars end.
        since: ``[N]``, where the bars start; None for crosses.
        y, height: the middle of the bars and their height.
        texts: what the hover label tells of each.
    """

    name: str
    color: str
    x: Floats
    texts: Sequence[str]
    since: Floats | None = None
    y: float = 1.0
    height: float = 0.0
    alpha: float = 1.0
    level: str = ""
    run: int = 0


@dataclass(frozen=True)
class Spreads:
    """Values with intervals at places along x, such as one a level: marks, or bars from 0 where they have a width.

    Attributes:
        name, color, marker: as of a `Curve`; a legend in the axes names it.
        x, y, low, high: ``[N]``; NaN where nothing is known, in `low` and `high` also where there is no interval.
        texts: what the hover label tells of each.
    """

    name: str
    color: str
    x: Floats
    y: Floats
    low: Floats
    high: Floats
    texts: Sequence[str]
    marker: str = "circle"
    width: float = 0.0
    run: int = 0


@dataclass(frozen=True)
class Matrix:
    """Cells with a number from -1 to 1, each around whole numbers of x and y: the first row is the topmost.

    Attributes:
        values: ``[R, C]``; NaN leaves a cell out.
        bold: ``[R, C]``, which numbers stand out.
        texts: by row, what the hover label tells of each.
    """

    values: Floats
    bold: Bools
    texts: Sequence[Sequence[str]]
    run: int = 0

    def text(self, row: int, column: int) -> str:
        """Return a cell's number with two decimals; nothing where it is left out."""
        value = float(self.values[row, column])
        return "" if np.isnan(value) else f"{round(value, 2) + 0.0:.2f}".replace("-", "\N{MINUS SIGN}")


@dataclass(frozen=True)
class Panel:
    """One set of axes.

    Attributes:
        key: unique among the panels of a group, and the stem of its file.
        group: the group of levels that it shows; empty for the run as a whole.
        title, says: without the group; a line that explains it on the page.
        ylabel: with the unit. Titles and labels may end in ``$mathtext$``, which the page leaves out.
        runs: the places of the runs in it.
        x: where the iterations start and end.
        xlabel, xticks: what x is, and names of places on it; None where x runs over the iterations.
        curves, marks: in the order of the hover label, the finest level first.
        spreads, matrix: what stands on named places instead.
        log: whether the scale is logarithmic; the page offers it for any panel without a `range`.
        range: of y; None as the values need, from 0 where it is linear.
        ticks, right: by height, the labels on the left and on the right; None for numbers as the values need.
        tick_color: of labels on the left.
        rules: heights of thin lines across.
        hover: how to write a value, as in d3-format.
        note: a few words on how to read it, on the right in the figure, which stand on the height `note_at`; ``{span}``
            is the number of intervals in the moving averages.
        legend: the levels, where the curves need a legend of them.
        tall: its height in rows of the figure.
    """

    key: str
    title: str
    says: str
    ylabel: str = ""
    curves: Sequence[Curve] = ()
    marks: Sequence[Marks] = ()
    spreads: Sequence[Spreads] = ()
    matrix: Matrix | None = None
    group: str = ""
    runs: tuple[int, ...] = ()
    x: tuple[float, float] = (0.0, 1.0)
    xlabel: str = "Iteration"
    xticks: Mapping[float, str] | None = None
    log: bool = False
    range: tuple[float, float] | None = None
    ticks: Mapping[float, str] | None = None
    right: Mapping[float, str] = field(default_factory=dict)
    tick_color: Mapping[str, str] = field(default_factory=dict)
    rules: Sequence[float] = ()
    hover: str = ".4~g"
    note: str = ""
    note_at: float = 0.0
    legend: Mapping[str, LevelLook] = field(default_factory=dict)
    tall: float = 1.0

    @property
    def over_iterations(self) -> bool:
        return self.xticks is None
