"""Draw the panels with matplotlib and write them as PNG, SVG or PDF."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msbal.errors import SpecError
from msbal.plotting.describe import Row, describe_panels
from msbal.plotting.levels import describe_diagnosis
from msbal.plotting.matplotlib_panel import draw_panel, label_ends
from msbal.plotting.panel import LevelLook, Panel
from msbal.plotting.series import RunSeries
from msbal.plotting.style import DASHES, MARKERS, Style, check_overlay, need, style_named
from msbal.records.atomic import replace_with
from msbal.records.diagnosis import LevelDiagnosis

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
        SpecError: an unknown style or palette, nothing to draw, or more runs to overlay than line styles.
        BackendError: matplotlib is missing.
    """
    rows = describe_panels(runs, what, palette)
    files = {out: rows}
    if out.suffix.lstrip(".").lower() not in FORMATS or out.is_dir():
        firsts = [row.panels[0] for row in rows]
        several_groups = len({panel.group for panel in firsts if panel.group}) > 1
        stems = [f"{panel.group}-" * bool(several_groups and panel.group) + panel.key for panel in firsts]
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
    """Write `figure` atomically, in the format that `path` ends with.

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
    """Draw the rows of `describe_panels` as one figure, which `save_figure` must write with the same style.

    One run: the panels fill the style's columns. Several, side by side: a row a panel, a column a run, each row
    with one scale. Several, overlaid: line styles tell the runs apart; panels that cannot be overlaid (stacked
    areas, actions) stand once for each run.
    """
    chosen = style_named(style)
    if overlay:
        check_overlay(len(runs))
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


def draw_diagnosis(diagnosis: LevelDiagnosis, path: Path, *, style: str = "screen") -> Path:
    """Write a diagnosis of levels as one image, in the format that `path` ends with.

    Raises:
        SpecError: an unknown style or format.
        BackendError: matplotlib is missing.
    """
    return save_figure(diagnosis_figure(diagnosis, style), path, style)


def diagnosis_figure(diagnosis: LevelDiagnosis, style: str) -> Figure:
    """Draw a diagnosis of levels: the start beside the last moment, or two kinds of panels in a row."""
    chosen = style_named(style)
    need("matplotlib")
    import matplotlib as mpl

    rows = describe_diagnosis(diagnosis)
    if all(len(row) == 1 for row in rows):
        panels = [panel for row in rows for panel in row]
        rows = [panels[start : start + 2] for start in range(0, len(panels), 2)]
    with mpl.rc_context(chosen.settings()):
        return _draw_cells(rows, chosen, 1, [diagnosis.model], side_by_side=False)


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
    several_groups = len({panel.group for panel in panels if panel.group}) > 1
    # a, b, c.. for the figures of a paper; none for a single panel or more than the alphabet has.
    letters = iter("abcdefghijklmnopqrstuvwxyz" if 1 < len(panels) <= 26 else "")
    legend = 0.28 if style.name == "paper" else 0.6
    figure = Figure(figsize=(width, style.row * sum(heights) + legend), layout="constrained")
    grid = figure.add_gridspec(len(rows), across, height_ratios=heights)
    for r, row in enumerate(rows):
        drawn: list[tuple[Axes, Panel]] = []
        for c, panel in enumerate(row):
            ax = figure.add_subplot(grid[r, c])
            header = f"{names[c]}\n" if side_by_side and r == 0 else ""
            if panel is None:
                ax.set_axis_off()
                ax.set_title(header, loc="left")
                middle: Any = {"ha": "center", "va": "center", "transform": ax.transAxes}
                ax.text(0.5, 0.5, "nothing recorded", color="#8a8a8a", **middle)
                continue
            draw_panel(ax, panel, style, smooth)
            run = names[panel.runs[0]] if not side_by_side and len(names) > 1 and len(panel.runs) == 1 else ""
            title = " · ".join(
                part for part in (panel.group if several_groups else "", panel.title, run) if part
            )
            letter = next(letters, "")
            ax.set_title(f"{header}({letter}) {title}" if letter else header + title, loc="left")
            below = rows[r + 1][c] if r + 1 < len(rows) and c < len(rows[r + 1]) else None
            if below is None or below.xlabel != panel.xlabel:
                ax.set_xlabel(panel.xlabel)
            drawn.append((ax, panel))
        if side_by_side:
            _share_scale([ax for ax, _ in drawn])
        for ax, panel in drawn:
            label_ends(ax, panel, style, smooth)
    named: dict[str, LevelLook] = {}
    for level, look in (entry for panel in panels for entry in panel.legend.items()):
        # A level may lack boxes in one group only: then only the curves of that group say so.
        named[level] = look if named.get(level, look) == look else replace(look, label=level)
    if named:
        levels: list[dict[str, Any]] = [
            {
                "label": look.label,
                "color": look.color,
                "lw": 1.5 * style.line,
                "marker": MARKERS[look.marker][0],
            }
            for look in named.values()
        ]
        _legend(figure, levels, "outside upper center", 10, length=2.2, ms=1.4 * style.marker)
    if any(len(panel.runs) > 1 for panel in panels):
        lines = [
            {"label": name, "color": "black", "lw": style.line, "ls": dash}
            for name, dash in zip(names, DASHES.values(), strict=False)
        ]
        short = sum(map(len, names)) < 50
        _legend(figure, lines, "outside lower center", len(names) if short else 1, length=3.0)
    return figure


def _share_scale(axes: Sequence[Axes]) -> None:
    """Give the runs of a row one y scale, so that they can be compared."""
    limits = [ax.get_ylim() for ax in axes]
    for place, ax in enumerate(axes):
        ax.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
        if place:
            ax.set_ylabel("")


def _legend(
    figure: Figure, lines: Sequence[dict[str, Any]], where: Any, columns: int, length: float, **more: Any
) -> None:
    """Add a legend; `length` lets line styles and marks be told apart."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], **line, **more) for line in lines]
    figure.legend(handles=handles, loc=where, ncols=min(len(handles), columns), handlelength=length)
