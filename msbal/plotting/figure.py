"""The panels as files: drawn by matplotlib, written as PNG, SVG or PDF."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from msbal.errors import SpecError
from msbal.plotting.describe import Row, describe_panels
from msbal.plotting.panel import Curve, Marks, Panel
from msbal.plotting.series import Bools, Floats, RunSeries, moving_average
from msbal.plotting.style import DASHES, Style, need, style_named
from msbal.records.atomic import replace_with

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")


def draw_files(
    runs: Sequence[RunSeries],
    out: Path,
    *,
    what: Sequence[str],
    form: str = "png",
    style: str = "screen",
    palette: str = "paper",
    smooth: int = 1,
    overlay: bool = False,
) -> list[Path]:
    """Write one file with everything where `out` ends in one of `FORMATS`, else a file a panel in that folder.

    Raises:
        SpecError: an unknown style or palette, or nothing to draw.
        BackendError: matplotlib is missing.
    """
    rows = describe_panels(runs, what, palette)
    files = {out: rows}
    if out.suffix.lstrip(".").lower() not in FORMATS or out.is_dir():
        several_groups = len({row.panels[0].group for row in rows}) > 1
        stems = [f"{row.panels[0].group}-" * several_groups + row.panels[0].key for row in rows]
        # What a group or term may be called (``stage0/cls``) must not lead out of the folder.
        safe = [
            "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in stem)
            for stem in stems
        ]
        files = {out / f"{stem}.{form}": [row] for stem, row in zip(safe, rows, strict=True)}
    return [
        save_figure(draw_figure(runs, some, style=style, smooth=smooth, overlay=overlay), file, style)
        for file, some in files.items()
    ]


def save_figure(figure: Figure, path: Path, style: str) -> Path:
    """Write `figure` in the format that `path` ends with, at once: no reader sees half a file.

    Raises:
        SpecError: the ending is none of `FORMATS`.
    """
    import matplotlib as mpl

    form = path.suffix.lstrip(".").lower()
    if form not in FORMATS:
        raise SpecError(str(path), f"found the ending `{path.suffix}`", f"one of {', '.join(FORMATS)}")
    # No date and no version inside: the same records give the same file.
    timeless: dict[str, dict[str, Any]] = {
        "png": {"Software": None},
        "svg": {"Date": None, "Creator": "msbal"},
        "pdf": {"CreationDate": None, "Creator": "msbal", "Producer": None},
    }
    with mpl.rc_context(style_named(style).settings()):  # ticks ask for it as late as this
        replace_with(path, lambda temporary: figure.savefig(temporary, format=form, metadata=timeless[form]))
    return path


def draw_figure(
    runs: Sequence[RunSeries],
    rows: Sequence[Row],
    *,
    style: str = "screen",
    smooth: int = 1,
    overlay: bool = False,
) -> Figure:
    """Draw what `describe_panels` described as one figure, which `save_figure` must write with the same style.

    One run: the panels fill the style's columns. Several, side by side: a row a panel, a column a run, each row
    with one scale. Several, overlaid: line styles tell the runs apart; panels that cannot be overlaid (stacked
    areas, actions) stand once for each run.
    """
    chosen = style_named(style)
    need("matplotlib")
    import matplotlib as mpl

    several = len(runs) > 1
    if several and not overlay:
        cells = [list(row.alone) for row in rows]
    else:
        panels = [panel for row in rows for panel in ([row.together] if row.together else row.panels)]
        across = chosen.columns if len(panels) > 2 else 1
        cells = [[*panels[start : start + across]] for start in range(0, len(panels), across)]
    with mpl.rc_context(chosen.settings()):
        return _draw_cells(
            cells, chosen, smooth, [run.name for run in runs], side_by_side=several and not overlay
        )


def _draw_cells(
    rows: Sequence[Sequence[Panel | None]],
    style: Style,
    smooth: int,
    names: Sequence[str],
    *,
    side_by_side: bool,
) -> Figure:
    from matplotlib.figure import Figure

    panels = [panel for row in rows for panel in row if panel]
    across = max(len(row) for row in rows)
    heights = [max(panel.tall for panel in row if panel) for row in rows]
    width = style.column if across == 1 else max(style.full, style.least * across)
    several_groups = len({panel.group for panel in panels}) > 1
    # a, b, c.. for the figures of a paper; none for a single panel or more than the alphabet has.
    letters = iter("abcdefghijklmnopqrstuvwxyz" if 1 < len(panels) <= 26 else "")
    legend = 0.28 if style.name == "paper" else 0.6
    figure = Figure(figsize=(width, style.row * sum(heights) + legend), layout="constrained")
    grid = figure.add_gridspec(len(rows), across, height_ratios=heights)
    for r, row in enumerate(rows):
        drawn = []
        for c, panel in enumerate(row):
            ax = figure.add_subplot(grid[r, c])
            header = f"{names[c]}\n" if side_by_side and r == 0 else ""
            if panel is None:
                ax.set_axis_off()
                ax.set_title(header, loc="left")
                middle: Any = {"ha": "center", "va": "center", "transform": ax.transAxes}
                ax.text(0.5, 0.5, "nothing recorded", color="#8a8a8a", **middle)
                continue
            _draw_panel(ax, panel, style, smooth)
            run = names[panel.runs[0]] if not side_by_side and len(names) > 1 and len(panel.runs) == 1 else ""
            title = " · ".join(
                part for part in (panel.group if several_groups else "", panel.title, run) if part
            )
            letter = next(letters, "")
            ax.set_title(f"{header}({letter}) {title}" if letter else header + title, loc="left")
            if not (r + 1 < len(rows) and c < len(rows[r + 1]) and rows[r + 1][c]):
                ax.set_xlabel("Iteration")
            drawn.append(ax)
        if side_by_side:
            _share_scale(drawn)
    if named := next((panel.legend for panel in panels if panel.legend), None):
        levels = [(level, color, 2 * style.line, "solid") for level, color in named.items()]
        _legend(figure, levels, "outside upper center", 10)
    if any(len(panel.runs) > 1 for panel in panels):
        dashes = itertools.cycle(DASHES.values())
        lines = [(name, "black", style.line, dash) for name, dash in zip(names, dashes, strict=False)]
        _legend(figure, lines, "outside lower center", 3)
    return figure


def _share_scale(axes: Sequence[Axes]) -> None:
    """One y scale for the runs of a row: side by side is for comparing."""
    limits = [ax.get_ylim() for ax in axes]
    for place, ax in enumerate(axes):
        ax.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
        if place:
            ax.set_ylabel("")


def _legend(figure: Figure, lines: Sequence[tuple[str, str, float, Any]], where: Any, columns: int) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], label=name, color=color, lw=width, ls=dash) for name, color, width, dash in lines
    ]
    length = 3.0 if columns == 3 else 1.6  # line styles need length to be told apart
    figure.legend(handles=handles, loc=where, ncols=min(len(handles), columns), handlelength=length)


def _draw_panel(ax: Axes, panel: Panel, style: Style, smooth: int) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    if panel.log:
        ax.set_yscale("log")
    top: Floats | float = 0.0  # of the stack so far
    for place, curve in enumerate(panel.curves):
        if smooth > 1 or not curve.if_smoothed:
            top = _draw_curve(ax, curve, style, smooth, top, place / 10_000)
    for marks in panel.marks:
        _draw_marks(ax, marks, panel, style)
    for height in panel.rules:
        ax.axhline(height, color="#9a9a9a", linewidth=0.5, zorder=1)
    ax.set_ylabel(panel.ylabel)
    ax.set_xlim(panel.x)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    ax.xaxis.set_major_formatter(FuncFormatter(_thousands))
    if panel.range:
        ax.set_ylim(panel.range)
    elif not panel.log and all(np.nanmin(curve.y, initial=0.0) >= 0 for curve in panel.curves):
        ax.set_ylim(bottom=0)
    _label_heights(ax, panel)
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
    span = smooth if smooth > 1 and curve.span else curve.span
    if span > 1:
        y = moving_average(y, span)
    marked = curve.marked and span <= 1
    if curve.stack:
        y = top + y
        # Each area reaches down to 0 behind those before it: areas side by side would have light seams. The colour is
        # mixed with white, since these cannot be transparent.
        mixed = 1 - curve.alpha * (1 - np.array(to_rgb(color)))
        ax.fill_between(*_corners(x, y, curve.hold), color=tuple(mixed), linewidth=0, zorder=1 - behind)
        return y
    if curve.hold:
        x, y = _corners(x, y, curve.hold)
    if curve.base is not None:
        ax.fill_between(x, curve.base, y, color=color, linewidth=0, alpha=min(curve.alpha, 0.85) * 0.3)
    ax.plot(
        x, y, color=color, linestyle=DASHES[curve.dash], linewidth=style.line * curve.width,
        marker="o" if marked else "", markersize=style.marker, alpha=curve.alpha, solid_joinstyle="round",
        zorder=2 + curve.width / 10 - behind,
    )  # fmt: skip
    if not marked and not curve.hold and (alone := isolated(y)).any():
        ax.plot(x[alone], y[alone], color=color, linestyle="", marker="o", markersize=style.marker)
    return top


def _corners(x: Floats, y: Floats, hold: str) -> tuple[Floats, Floats]:
    """The corners of steps: a fill by matplotlib's own `step` would lose the one beside a gap."""
    steps = np.repeat(x, 2), np.repeat(y, 2)
    return (steps[0][1:], steps[1][:-1]) if hold == "after" else (steps[0][:-1], steps[1][1:])


def isolated(y: Floats) -> Bools:
    """``[N] -> [N]``, the values without a neighbour, which no line would show."""
    known = np.concatenate([[False], np.isfinite(y), [False]])
    return np.asarray(known[1:-1] & ~known[:-2] & ~known[2:], dtype=np.bool_)


def _draw_marks(ax: Axes, marks: Marks, panel: Panel, style: Style) -> None:
    if marks.y is None:
        ax.scatter(
            marks.x, [1.0] * len(marks.x), color=marks.color, marker="x", s=(style.marker * 2) ** 2,
            linewidths=style.line, transform=ax.get_xaxis_transform(), clip_on=False, zorder=5,
        )  # fmt: skip
        return
    number = max([1, *(len(curve.x) for curve in panel.curves)])
    ax.vlines(
        marks.x, marks.y - marks.height / 2, marks.y + marks.height / 2, color=marks.color, alpha=marks.alpha,
        linewidth=float(np.clip(style.line * 300 / number, 0.2, style.line * 1.6)),
    )  # fmt: skip


def _label_heights(ax: Axes, panel: Panel) -> None:
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
        right = ax.secondary_yaxis("right")
        right.set_yticks(list(panel.right), list(panel.right.values()), fontsize="x-small")
        right.tick_params(axis="y", length=0, pad=2)  # a tick before "1" reads as a minus
        right.spines["right"].set_visible(False)


def _thousands(value: float, _: Any = None) -> str:
    return f"{value / 1000:g}k" if abs(value) >= 1000 else f"{value:g}"
