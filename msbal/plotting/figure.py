"""Panels put together to one figure, and the figure written to a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msbal.errors import SpecError
from msbal.plotting.extra import need
from msbal.plotting.panels import Curves, Look, Panel, choose_panels
from msbal.plotting.series import RunSeries, merge_names
from msbal.plotting.style import RUN_DASHES, Style, action_colors, level_colors, style_named
from msbal.records.atomic import replace_with

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")


@dataclass(frozen=True)
class Cell:
    """One pair of axes: a panel, and the runs (places in the list of runs) drawn in it, if they can fill it."""

    panel: Panel
    runs: tuple[int, ...]
    title: str
    header: str = ""


def make_look(runs: Sequence[RunSeries], style: Style, palette: str, smooth: int) -> Look:
    """The colours of all runs' levels and actions: the same in every panel and file."""
    groups = [group for run in runs for group in run.groups]
    return Look(
        style=style,
        level_color=level_colors(merge_names(group.levels for group in groups), palette),
        action_color=action_colors(merge_names(group.actions for group in groups)),
        smooth=smooth,
    )


def draw_figure(
    runs: Sequence[RunSeries],
    panels: Sequence[Panel],
    *,
    style: str = "screen",
    palette: str = "paper",
    smooth: int = 1,
    overlay: bool = False,
) -> Figure:
    """All ``panels`` of all ``runs`` in one figure.

    One run: the panels fill the style's columns. Several, side by side: a row a panel, a column a run,
    each row with one scale. Several, overlaid: line styles tell the runs apart; the panels that cannot be
    overlaid (stacked areas, actions) stand once for each run.

    `save_figure` writes it with the style's settings in force, which ticks ask for as late as that.

    Raises:
        SpecError: an unknown style or palette.
        ValueError: no run can fill a panel; `choose_panels` chooses those that one can.
        BackendError: matplotlib is missing.
    """
    need("matplotlib")
    import matplotlib as mpl
    from matplotlib.figure import Figure

    chosen = style_named(style)
    look = make_look(runs, chosen, palette, smooth)
    rows = _rows(runs, panels, overlay=overlay, columns=chosen.columns)
    if not rows:
        raise ValueError("`panels` should have one that a run can fill. Found none.")
    across = max(len(row) for row in rows)
    heights = [max(cell.panel.height for cell in row) for row in rows]
    width = chosen.column if across == 1 else max(chosen.full, chosen.least * across)
    with mpl.rc_context(chosen.settings()):
        legend = 0.28 if chosen.name == "paper" else 0.6
        figure = Figure(figsize=(width, chosen.row * sum(heights) + legend), layout="constrained")
        grid = figure.add_gridspec(len(rows), across, height_ratios=heights)
        letters = iter(_letters(sum(bool(cell.runs) for row in rows for cell in row)))
        for r, row in enumerate(rows):
            axes = []
            for c, cell in enumerate(row):
                ax = figure.add_subplot(grid[r, c])
                if not cell.runs:
                    _leave_empty(ax, cell)
                    continue
                _fill(ax, cell, runs, look, next(letters))
                below = r + 1 < len(rows) and c < len(rows[r + 1])
                ax.set_xlabel("" if below and rows[r + 1][c].runs else "Iteration")
                axes.append((cell, ax))
            _share_scale(axes)
        cells = [cell for row in rows for cell in row]
        if any(cell.panel.legend for cell in cells):
            _legend_of_levels(figure, look)
        if any(len(cell.runs) > 1 for cell in cells):
            _legend_of_runs(figure, runs, look)
    return figure


def _rows(
    runs: Sequence[RunSeries], panels: Sequence[Panel], *, overlay: bool, columns: int
) -> list[list[Cell]]:
    several_groups = len({panel.group for panel in panels}) > 1

    def title(panel: Panel, run: str = "") -> str:
        parts = [panel.group if several_groups else "", panel.title, run]
        return " · ".join(part for part in parts if part)

    def shows(place: int, panel: Panel) -> bool:
        group = runs[place].group(panel.group)
        return group is not None and panel.has_data(group)

    everyone = range(len(runs))
    if len(runs) > 1 and not overlay:
        table = [
            [Cell(panel, (place,) if shows(place, panel) else (), title(panel)) for place in everyone]
            for panel in panels
        ]
        table = [row for row in table if any(cell.runs for cell in row)]
        if table:
            table[0] = [replace(cell, header=run.name) for cell, run in zip(table[0], runs, strict=True)]
        return table
    cells: list[Cell] = []
    for panel in panels:
        drawn = tuple(place for place in everyone if shows(place, panel))
        if drawn and (panel.overlays or len(runs) == 1):
            cells.append(Cell(panel, drawn, title(panel)))
        else:
            cells += [Cell(panel, (place,), title(panel, runs[place].name)) for place in drawn]
    across = columns if len(cells) > 2 else 1
    return [list(cells[start : start + across]) for start in range(0, len(cells), across)]


def _fill(ax: Axes, cell: Cell, runs: Sequence[RunSeries], look: Look, letter: str) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    peers = tuple(group for run in runs if (group := run.group(cell.panel.group)) is not None)
    curves = []
    for place in cell.runs:
        group = runs[place].group(cell.panel.group)
        assert group is not None  # _rows asked shows()
        dash = RUN_DASHES[place % len(RUN_DASHES)] if len(cell.runs) > 1 else "solid"
        curves.append(Curves(group, peers, dash))
    cell.panel.draw(ax, curves, look)
    ax.set_title(_under(cell.header, f"({letter}) {cell.title}" if letter else cell.title), loc="left")
    ax.set_ylabel(cell.panel.ylabel)
    start = min(run.group.start for run in curves)
    end = max(int(run.group.iteration[-1]) for run in curves)
    ax.set_xlim(start, end + 0.012 * (end - start))  # the last mark stands clear of the edge
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    ax.xaxis.set_major_formatter(FuncFormatter(_thousands))


def _leave_empty(ax: Axes, cell: Cell) -> None:
    """In a table of runs, the place of a panel that this run cannot fill."""
    ax.set_axis_off()
    ax.set_title(_under(cell.header, ""), loc="left")
    ax.text(0.5, 0.5, "nothing recorded", ha="center", va="center", color="#8a8a8a", transform=ax.transAxes)


def _under(header: str, title: str) -> str:
    return f"{header}\n{title}" if header else title


def _thousands(value: float, _: Any = None) -> str:
    return f"{value / 1000:g}k" if abs(value) >= 1000 else f"{value:g}"


def _letters(number: int) -> list[str]:
    """a, b, c.. for the figures of a paper; none for a single panel or more than the alphabet has."""
    if not 1 < number <= 26:
        return [""] * number
    return [chr(ord("a") + place) for place in range(number)]


def _share_scale(axes: Sequence[tuple[Cell, Axes]]) -> None:
    """One y scale for the runs of a row: side by side is for comparing."""
    alike = [ax for cell, ax in axes if cell.panel.key == axes[0][0].panel.key]
    if len(alike) < 2 or len(alike) < len(axes):
        return
    limits = [ax.get_ylim() for ax in alike]
    for ax in alike:
        ax.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
    for ax in alike[1:]:
        ax.set_ylabel("")


def _legend_of_levels(figure: Figure, look: Look) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=color, linewidth=look.style.line * 2, label=level)
        for level, color in look.level_color.items()
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 10))


def _legend_of_runs(figure: Figure, runs: Sequence[RunSeries], look: Look) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color="#333333", linewidth=look.style.line * 1.4, label=run.name, linestyle=dash)
        for run, dash in zip(runs, cycle(RUN_DASHES), strict=False)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(3, len(handles)), handlelength=3)


def save_figure(figure: Figure, path: Path, style: str) -> Path:
    """Writes ``figure`` in the format that ``path`` ends with, at once: no reader sees half a file.

    Raises:
        SpecError: the ending is none of :data:`FORMATS`.
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
    with mpl.rc_context(style_named(style).settings()):
        replace_with(path, lambda temporary: figure.savefig(temporary, format=form, metadata=timeless[form]))
    return path


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
    """One file with everything where ``out`` ends with a picture's ending, else one a panel in that folder."""
    panels = choose_panels(runs, what)
    options: dict[str, Any] = {"style": style, "palette": palette, "smooth": smooth, "overlay": overlay}
    is_file = out.suffix.lstrip(".").lower() in FORMATS and not out.is_dir()
    if is_file:
        return [save_figure(draw_figure(runs, panels, **options), out, style)]
    several_groups = len({panel.group for panel in panels}) > 1
    written = []
    for panel in panels:
        stem = f"{panel.group}-{panel.key}" if several_groups else panel.key
        file = out / f"{_safe(stem)}.{form}"
        written.append(save_figure(draw_figure(runs, [panel], **options), file, style))
    return written


def _safe(stem: str) -> str:
    """A file name of what a group or term may be called (``stage0/cls``)."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in stem)
