"""Draw a panel with matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from msbal.plotting.panel import FEW_POINTS, Curve, Marks, Matrix, Panel, Spreads
from msbal.plotting.series import Bools, Floats, moving_average
from msbal.plotting.style import BAD, DASHES, GOOD, INK, MARKERS, Style

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_panel(ax: Axes, panel: Panel, style: Style, smooth: int) -> None:
    """Draw all of `panel` but its title; `smooth` intervals in a moving average, 1 for those of the panel's own."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    if panel.log:
        ax.set_yscale("log")
    top: Floats | float = 0.0  # of the stack so far
    for place, curve in enumerate(panel.curves):
        if smooth > 1 or not curve.if_smoothed:
            top = _draw_curve(ax, curve, style, smooth, top, place / 10_000)
    for marks in panel.marks:
        _draw_marks(ax, marks, style)
    if panel.spreads:
        _draw_spreads(ax, panel.spreads, style)
    if panel.matrix:
        _draw_matrix(ax, panel.matrix)
    for height in panel.rules:
        ax.axhline(height, color="#9a9a9a", linewidth=0.5, zorder=1)
    ax.set_ylabel(panel.ylabel)
    ax.set_xlim(panel.x)
    if panel.xticks is None:
        ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        ax.xaxis.set_major_formatter(FuncFormatter(_thousands))
    else:
        ax.set_xticks(list(panel.xticks), list(panel.xticks.values()))
        ax.tick_params(axis="x", length=0)
        ax.grid(False, axis="x")
    if panel.range:
        ax.set_ylim(panel.range)
    elif not panel.log and all(np.nanmin(curve.y, initial=0.0) >= 0 for curve in panel.curves):
        ax.set_ylim(bottom=0)
    _label_heights(ax, panel, style)
    if panel.note:
        spans = sorted({smooth if smooth > 1 else curve.span for curve in panel.curves if curve.span})
        if spans != [1]:
            ax.annotate(
                panel.note.format(span="/".join(map(str, spans))), (1, panel.note_at), (0, 1),
                xycoords=("axes fraction", "data"), textcoords="offset points", ha="right", va="bottom",
                color="#555555", fontsize="x-small", zorder=6,
            )  # fmt: skip


def _draw_curve(
    ax: Axes, curve: Curve, style: Style, smooth: int, top: Floats | float, behind: float
) -> Floats | float:
    """Draw one curve, thicker ones and those with a smaller `behind` on top; return the top of the stack so far."""
    from matplotlib.colors import to_rgb

    x, y, color = curve.x, curve.y, curve.color
    span = _span(curve, smooth)
    if span > 1:
        y = moving_average(y, span)
    if curve.stack:
        y = top + y
        # Each area reaches down to 0 behind those before it: areas side by side would show light lines. The colour is
        # mixed with white, since these cannot be transparent.
        mixed = 1 - curve.alpha * (1 - np.array(to_rgb(color)))
        ax.fill_between(*_corners(x, y), color=tuple(mixed), linewidth=0, zorder=1 - behind)
        return y
    if curve.steps:
        x, y = _corners(x, y)
    if curve.base is not None:
        ax.fill_between(x, curve.base, y, color=color, linewidth=0, alpha=min(curve.alpha, 0.85) * 0.3)
    ax.plot(
        x, y, color=color, linestyle=DASHES[curve.dash], linewidth=style.line * curve.width,
        marker=MARKERS[curve.marker][0] if curve.marks else "", markersize=style.marker, markevery=_marked(curve),
        markerfacecolor=color if curve.dash == "solid" else "white", alpha=curve.alpha, solid_joinstyle="round",
        zorder=2 + curve.width / 10 - behind,
    )  # fmt: skip
    if not curve.marks and not curve.steps and (alone := isolated(y)).any():
        ax.plot(x[alone], y[alone], color=color, linestyle="", marker="o", markersize=style.marker)
    return top


def _span(curve: Curve, smooth: int) -> int:
    return smooth if smooth > 1 and curve.span else curve.span


def _marked(curve: Curve) -> tuple[int, int]:
    """Return the first point with a mark and the step to the next; levels start apart so that none hides another."""
    if curve.marks <= FEW_POINTS and curve.marks >= np.isfinite(curve.y).sum():
        return 0, 1
    step = max(1, len(curve.y) // max(1, curve.marks))
    place = list(MARKERS).index(curve.marker) if curve.marker else 0
    return place * step // len(MARKERS), step


def _corners(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Return the corners of steps; matplotlib's own `step` would lose the one beside a gap in a filled area."""
    return np.repeat(x, 2)[:-1], np.repeat(y, 2)[1:]


def isolated(y: Floats) -> Bools:
    """Return where a value has no neighbour, so that no line would show it: ``[N] -> [N]``."""
    known = np.concatenate([[False], np.isfinite(y), [False]])
    return np.asarray(known[1:-1] & ~known[:-2] & ~known[2:], dtype=np.bool_)


def label_ends(ax: Axes, panel: Panel, style: Style, smooth: int) -> None:
    """Write the curves' names beside their ends; curves of several runs that have one name share it."""
    ends: dict[str, list[tuple[float, float, str]]] = {}
    for curve in panel.curves:
        span = _span(curve, smooth)
        y = moving_average(curve.y, span) if span > 1 else curve.y
        if curve.label and (known := np.isfinite(y)).any():
            ends.setdefault(curve.label, []).append((curve.x[known][-1], y[known][-1], curve.color))
    if not ends:
        return
    to_share = ax.transScale + ax.transLimits  # of the height of the axes
    heights = [np.mean([to_share.transform((1, y))[1] for _, y, _ in found]) for found in ends.values()]
    size = 0.78 * float(style.rc["font.size"])
    places = move_apart(np.array(heights), 1.1 * size / (0.75 * 72 * style.row * panel.tall))
    for (name, found), place in zip(ends.items(), places, strict=True):
        x, _, color = max(found)
        ax.annotate(
            name, (x, place), (style.marker + 1.5, 0), xycoords=("data", "axes fraction"),
            textcoords="offset points", va="center", color=color, fontsize=size,
        )  # fmt: skip


def move_apart(places: Floats, gap: float) -> Floats:
    """Return `places` moved until any two are `gap` apart, within 0..1 where there is room."""
    order = np.argsort(places, kind="stable")
    steps = gap * np.arange(len(places))
    # As far up as those below push, as far down as those above do, and the middle of both.
    up = np.maximum.accumulate(places[order] - steps) + steps
    down = np.minimum.accumulate((places[order] - steps)[::-1])[::-1] + steps
    moved: Floats = np.empty_like(places)
    moved[order] = np.maximum(steps, np.minimum((up + down) / 2, 1 - steps[::-1]))
    return moved


def _draw_marks(ax: Axes, marks: Marks, style: Style) -> None:
    if marks.since is None:
        ax.scatter(
            marks.x, [1.0] * len(marks.x), color=marks.color, marker="x", s=(style.marker * 2) ** 2,
            linewidths=style.line, transform=ax.get_xaxis_transform(), clip_on=False, zorder=5,
        )  # fmt: skip
        return
    bars = list(zip(marks.since.tolist(), (marks.x - marks.since).tolist(), strict=True))
    bottom = marks.y - marks.height / 2
    ax.broken_barh(bars, (bottom, marks.height), color=marks.color, alpha=marks.alpha, linewidth=0)


def _draw_spreads(ax: Axes, spreads: Sequence[Spreads], style: Style) -> None:
    for one in spreads:
        reach = np.nan_to_num(np.stack([one.y - one.low, one.high - one.y]))
        if one.width:
            ax.bar(one.x, one.y, one.width, color=one.color, linewidth=0, label=one.name, zorder=2)
        ink: dict[str, Any] = {
            "ecolor": INK if one.width else one.color,
            "elinewidth": 0.8 * style.line,
            "zorder": 3,
        }
        look: dict[str, Any] = {"fmt": "none" if one.width else MARKERS[one.marker][0], "color": one.color}
        name = None if one.width else one.name
        known = reach.any(axis=0) | (not one.width)
        ax.errorbar(
            one.x[known], one.y[known], reach[:, known], label=name, ms=1.4 * style.marker, **look, **ink
        )
    ax.legend(
        loc="upper right", ncols=len(spreads), fontsize="x-small", columnspacing=0.9, handletextpad=0.35,
        handlelength=0.9, borderaxespad=0.0, borderpad=0.1,
    )  # fmt: skip


def _draw_matrix(ax: Axes, matrix: Matrix) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    colors = LinearSegmentedColormap.from_list("cosine", [BAD, "#ffffff", GOOD])
    rows, columns = matrix.values.shape
    edges = np.arange(columns + 1) - 0.5, np.arange(rows, -1, -1) - 0.5
    # A NaN is left out.
    ax.pcolormesh(*edges, matrix.values, cmap=colors, vmin=-1, vmax=1, edgecolors="white", linewidth=0.8)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.tick_params(axis="y", length=0)
    size = "small" if columns <= 6 else "x-small"
    for (row, column), value in np.ndenumerate(matrix.values):
        if text := matrix.text(row, column):
            ax.text(
                column, rows - 1 - row, text, ha="center", va="center", fontsize=size,
                color="white" if abs(value) > 0.65 else INK,
                fontweight="bold" if matrix.bold[row, column] else "normal",
            )  # fmt: skip


def _label_heights(ax: Axes, panel: Panel, style: Style) -> None:
    if panel.ticks is not None:
        ax.set_yticks(list(panel.ticks), list(panel.ticks.values()))
        for label, line in zip(ax.get_yticklabels(), ax.yaxis.get_gridlines(), strict=True):
            if label.get_text() in panel.tick_color:
                label.set_color(panel.tick_color[label.get_text()])
                line.set_visible(False)
    if any(curve.stack for curve in panel.curves):
        ax.set_axisbelow(False)
        ax.grid(True, color="white", alpha=0.4)
    if panel.right:
        ax.tick_params(axis="y", length=0)
        ax.yaxis.labelpad += style.marker
        right = ax.secondary_yaxis("right")
        right.set_yticks(list(panel.right), list(panel.right.values()), fontsize="x-small")
        right.tick_params(axis="y", length=0, pad=2)  # a tick before "1" reads as a minus
        right.spines["right"].set_visible(False)


def _thousands(value: float, _: Any = None) -> str:
    return f"{value / 1000:g}k" if abs(value) >= 1000 else f"{value:g}"
