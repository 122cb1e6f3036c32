"""The panels as a page: one HTML file to hover over, zoom and filter, which needs nothing else.

Plotly's Python objects are the figures and its library, inlined, draws them. A short script of our own
(``page/page.js``) does what plotly's buttons cannot do, since they reach only the figure that they stand in: apply
the page's controls and a zoom to all figures at once.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from msbal.plotting.describe import describe_panels, make_look
from msbal.plotting.kinds import Look
from msbal.plotting.panel import Curve, Marks, Panel
from msbal.plotting.series import Floats, GroupSeries, RunSeries
from msbal.plotting.style import DASHES, PALETTES, level_colors, need
from msbal.records.atomic import write_text

DIGITS = 6
"""Significant digits that the page carries: more than a screen shows, half the size of all."""

FEW_POINTS = 25
"""Up to so many intervals each is marked."""


def write_page(
    runs: Sequence[RunSeries],
    path: Path,
    *,
    what: Sequence[str],
    palette: str = "paper",
    smooth: int = 1,
    overlay: bool = False,
    title: str = "",
) -> Path:
    """Write the page of `runs` to `path`.

    Raises:
        BackendError: plotly is missing.
        SpecError: an unknown palette, or nothing to show.
    """
    look = make_look(runs, palette)
    cards, figures = _cards(runs, what)
    need("plotly")
    from plotly.offline import get_plotlyjs

    content = {
        "figures": figures,
        "palettes": {name: level_colors(list(look.levels), name) for name in PALETTES},
    }
    parts = {
        "title": html.escape(title or f"Level losses of {', '.join(run.name for run in runs)}"),
        "style": _part("page.css"),
        "levels": "".join(_chip("level", level, _dot(level=level), level) for level in look.levels),
        "runs": "".join(_chip("run", str(n), _dash(n), run.name) for n, run in enumerate(runs)),
        "one": "hidden" if len(runs) < 2 else "",
        "smooth": str(smooth),
        "palettes": "".join(_option(name, name == palette) for name in PALETTES),
        "layouts": _option("side", not overlay, "side by side") + _option("overlay", overlay, "overlaid"),
        "notes": "".join(
            f'<div class="note">{html.escape(f"{run.name}: {note}")}</div>' for run in runs for note in run.notes
        ),
        "summary": _summary(runs, look),
        "panels": cards,
        "figures": to_script(content),
        "plotly": get_plotlyjs(),
        "script": _part("page.js"),
    }  # fmt: skip
    # One pass: what a part contains is not searched again.
    write_text(path, re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], _part("page.html")))
    return path


def to_script(content: Any) -> str:
    """Return JSON that may stand inside a <script>: no "<" is left that could end it."""
    text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _cards(runs: Sequence[RunSeries], what: Sequence[str]) -> tuple[str, list[dict[str, Any]]]:
    """The cards of all panels, and the figure of each: side by side, and overlaid where a kind allows it."""
    side = describe_panels(runs, what)
    overlaid = {
        (row[0].group, row[0].key): row[0]
        for row in (describe_panels(runs, what, overlay=True) if len(runs) > 1 else ())
        if row[0] and len(row[0].runs) > 1
    }
    groups = dict.fromkeys(panel.group for row in side for panel in row if panel)
    text, figures = "", []
    for group in groups:
        text += f"<h2>{html.escape(group)}</h2>" if len(groups) > 1 else ""
        for row in side:
            first = next(panel for panel in row if panel)
            if first.group != group:
                continue
            both = overlaid.get((first.group, first.key))
            cards = []
            for n, panel in enumerate(row):
                layout = "side" if both or not panel else ""
                name = runs[n].name if len(runs) > 1 else ""
                cards.append(_card(panel or first, layout, str(n), name, empty=panel is None))
                figures += [_figure(panel)] if panel else []
            if both:
                cards.append(_card(both, "overlay", "", ""))
                figures.append(_figure(both))
            text += f'<div class="row">{"".join(cards)}</div>'
    return text, figures


def _card(panel: Panel, layout: str, run: str, name: str, *, empty: bool = False) -> str:
    title = html.escape(_plain(panel.title))
    where = f'class="card{" empty" * empty}" data-layout="{layout}" data-run="{run}"'
    if empty:
        return f"<section {where}>{title}: nothing recorded by {html.escape(name)}</section>"
    name = f'<span class="soft">  {html.escape(name)}</span>' if name else ""
    key = html.escape(f"{panel.group}/{panel.key}")
    return (
        f"<section {where}><h3>{title}{name}</h3><p>{html.escape(panel.says)}</p>"
        f'<div class="plot" data-panel="{key}"></div></section>'
    )


def _figure(panel: Panel) -> dict[str, Any]:
    """Return a plotly figure as JSON's types; its `meta` tells the page's script what it may change."""
    import plotly.graph_objects as go

    # Plotly lists filled curves last to first in its hover label, unless told not to.
    figure = go.Figure(layout={"template": "none", "legend": {"traceorder": "normal"}})
    for curve in panel.curves:
        figure.add_traces(_traces(curve, panel))
    for marks in panel.marks:
        figure.add_trace(_marks(marks))
    for height in panel.rules:
        figure.add_hline(height, line={"color": "rgba(128,128,128,0.6)", "width": 0.6}, layer="below")
    figure.update_layout(
        meta={
            "panel": f"{panel.group}/{panel.key}",
            "auto": panel.range is None,
            "log": panel.log,
            "x": panel.x,
        },
        font={"color": "#1c2024", "size": 12},
        showlegend=False,
        margin={"l": 12, "r": 14, "t": 8, "b": 30},
        hovermode="x unified",
        dragmode="zoom",
        modebar_bgcolor="rgba(0,0,0,0)",
    )
    axis = {"gridcolor": "#eceef1", "linecolor": "#e2e5e9", "zeroline": False, "automargin": True}
    figure.update_xaxes(
        **axis, range=panel.x, tickformat="~s", hoverformat=",d", unifiedhovertitle_text="iteration %{x}"
    )
    figure.update_yaxes(**axis, title_text=_plain(panel.ylabel), exponentformat="power", range=panel.range)
    if panel.ticks is not None:
        labels = [html.escape(label, quote=False) for label in panel.ticks.values()]
        figure.update_yaxes(tickvals=list(panel.ticks), ticktext=labels, showgrid=not panel.right)
    if any(marks.y is None for marks in panel.marks):
        figure.update_layout(
            yaxis2={"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True}
        )
    return figure.to_plotly_json()  # type: ignore[no-any-return]


def _traces(curve: Curve, panel: Panel) -> list[Any]:
    import plotly.graph_objects as go

    meta = {"level": curve.level, "run": str(curve.run), "span": curve.span, "ifSmoothed": curve.if_smoothed}
    if curve.count is not None:
        meta["count"] = curve.count.astype(int).tolist()
    line = {"color": curve.color, "width": 1.5 * curve.width, "dash": curve.dash}
    line["shape"] = {"": "linear", "before": "vh", "after": "hv"}[curve.hold]
    points = curve.hold == "" and not curve.if_smoothed and len(curve.x) <= FEW_POINTS
    trace = go.Scatter(
        **_places(curve.x), y=_numbers(curve.y), name=html.escape(curve.name, quote=False), meta=meta, line=line,
        mode="lines+markers" if points else "lines", marker_size=5, opacity=1.0 if curve.stack else curve.alpha,
        hovertemplate=f"%{{{'y' if curve.values is None else 'customdata'}:{panel.hover}}}", connectgaps=False,
    )  # fmt: skip
    if curve.values is not None:
        trace.customdata = _numbers(curve.values)
    if curve.if_smoothed and not curve.span:
        trace.update(hoverinfo="skip", hovertemplate=None)
    if curve.stack:
        trace.update(stackgroup="all", fillcolor=curve.color, line_width=0.4)
    if curve.base is None or not np.isfinite(curve.y).all():  # plotly fills across a gap
        return [trace]
    trace.update(fill="tonexty", fillcolor="rgba(128,128,128,0.12)")
    ends, base = [curve.x[0], curve.x[-1]], [curve.base] * 2
    return [
        go.Scatter(x=ends, y=base, meta={**meta, "span": 0}, line_width=0, mode="lines", hoverinfo="skip"),
        trace,
    ]


def _marks(marks: Marks) -> Any:
    import plotly.graph_objects as go

    tick = marks.y is not None
    look = {"symbol": "line-ns-open", "size": 11, "line_width": 1.3} if tick else {"symbol": "x", "size": 8}
    return go.Scatter(
        x=marks.x.tolist(), y=[marks.y if tick else 1] * len(marks.x), yaxis="y" if tick else "y2", mode="markers",
        name=html.escape(marks.name, quote=False), customdata=[html.escape(text, quote=False) for text in marks.texts],
        marker={**look, "color": marks.color, "opacity": marks.alpha}, cliponaxis=tick, hovertemplate="%{customdata}",
        meta={"level": marks.level, "run": str(marks.run), "span": 0},
    )  # fmt: skip


def _places(x: Floats) -> dict[str, Any]:
    """Return x as its start and step where it is even, which saves half of the page."""
    steps = np.unique(np.diff(x))
    return {"x0": x[0], "dx": steps[0]} if len(steps) == 1 else {"x": x.tolist()}


def _numbers(values: Floats) -> list[float | None]:
    """Return `values` with `DIGITS` digits; NaN as None."""
    rounded = (float(f"{value:.{DIGITS}g}") for value in values.tolist())
    return [None if np.isnan(v) else int(v) if v.is_integer() and abs(v) < 2**53 else v for v in rounded]


def _plain(text: str) -> str:
    """Return `text` without mathtext, which is matplotlib's own."""
    return re.sub(r"\s*\$[^$]*\$", "", text)


def _chip(kind: str, value: str, sign: str, text: str) -> str:
    box = f'<input type="checkbox" name="{kind}" value="{html.escape(value)}" checked>'
    return f'<label class="chip">{box}{sign}{html.escape(text)}</label>'


def _dot(level: str = "", color: str = "") -> str:
    return f'<span class="dot" data-level="{html.escape(level)}" style="background:{color}"></span>'


def _dash(run: int) -> str:
    pattern = ("none", "7 3", "2 3", "7 3 2 3", "11 3")[run % len(DASHES)]
    line = (
        f'<line x2="26" y1="4" y2="4" stroke="currentColor" stroke-width="2" stroke-dasharray="{pattern}"/>'
    )
    return f'<svg width="26" height="8">{line}</svg>'


def _option(value: str, selected: bool, text: str = "") -> str:
    return f'<option value="{value}"{" selected" * selected}>{text or value}</option>'


def _summary(runs: Sequence[RunSeries], look: Look) -> str:
    """The table's rows: where each run stands, and what its choices earned."""
    return "".join(
        f'<tr data-run="{n}"><td title="{html.escape(run.source)}">{html.escape(run.name)}'
        f"{html.escape(f' · {group.name}') if len(run.groups) > 1 else ''}</td>{_summary_cells(group, look)}</tr>"
        for n, run in enumerate(runs)
        for group in run.groups
    )


def _summary_cells(group: GroupSeries, look: Look) -> str:
    known = np.flatnonzero(~group.missing)
    total = group.mean_loss().sum(axis=1)
    first, last = (f"{value:.4g}" if np.isfinite(value) else "–" for value in total[known[[0, -1]]])
    weights = [
        f'<span class="value">{_dot(level)}{html.escape(level)} {weight:.3g}</span>'
        for level, weight in zip(group.levels, group.weights[-1], strict=True)
    ]
    actions = []
    earned, taken = group.outcome(), np.array(group.action)
    for name in group.actions or dict.fromkeys(name for name in group.action if name):
        # Eq 6 judges the action of an interval by the next one: the newest has no verdict yet.
        judged = earned[(taken == name) & np.isfinite(earned)] if group.actions else earned[:0]
        share = f' <span class="soft">({(judged > 0).mean():.0%})</span>' if judged.size else ""
        sign = _dot(color=look.actions.get(name, "#666666"))
        count = int((taken == name).sum())
        actions.append(f'<span class="value">{sign}{html.escape(name)} {count}{share}</span>')
    iterations = f'{group.iteration[-1]:,} <span class="soft">{len(known)} × {group.length}</span>'
    return "".join(
        f"<td>{cell}</td>" for cell in (iterations, f"{first} → {last}", " ".join(weights), " ".join(actions))
    )


def _part(name: str) -> str:
    return resources.files("msbal.plotting").joinpath("page", name).read_text(encoding="utf-8")
