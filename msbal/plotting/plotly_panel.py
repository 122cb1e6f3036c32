"""Describe a panel as a plotly figure for the page."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from msbal.plotting.panel import FEW_POINTS, SOME_MARKS, Curve, Marks, Matrix, Panel, Spreads
from msbal.plotting.series import Floats
from msbal.plotting.style import INK

DIGITS = 6
"""Significant digits that the page carries: more than a screen shows, half the size of all."""


def plotly_panel(panel: Panel) -> dict[str, Any]:
    """Return a plotly figure as JSON's types; its `meta` tells the page's script what it may change."""
    import plotly.graph_objects as go

    # Plotly lists filled curves last to first in its hover label, unless told not to.
    figure = go.Figure(layout={"template": "none", "legend": {"traceorder": "normal"}})
    # The names of levels would hide each other, and levels have their marks; runs share a name.
    named = {curve.label: id(curve) for curve in reversed(panel.curves) if curve.label and not curve.level}
    for curve in panel.curves:
        figure.add_traces(_traces(curve, panel, named=id(curve) in named.values()))
    for marks in panel.marks:
        figure.add_trace(_marks(marks))
    figure.add_traces([_spreads(one, panel) for one in panel.spreads])
    if panel.matrix:
        figure.add_trace(_matrix(panel.matrix))
    for height in panel.rules:
        figure.add_hline(height, line={"color": "rgba(128,128,128,0.6)", "width": 0.6}, layer="below")
    figure.update_layout(
        meta={
            "auto": panel.range is None,
            "log": panel.log,
            "x": panel.x,
            "fixed": not panel.over_iterations,
        },
        font={"color": "#1c2024", "size": 12},
        showlegend=bool(panel.spreads),
        margin={"l": 12, "r": 46 if named or panel.right else 14, "t": 26, "b": 42},
        hovermode="x unified" if panel.over_iterations else "closest",
        dragmode="zoom",
        modebar_bgcolor="rgba(0,0,0,0)",
        barmode="overlay",
    )
    axis = {"gridcolor": "#eceef1", "linecolor": "#e2e5e9", "zeroline": False, "automargin": True}
    figure.update_xaxes(
        **axis,
        range=panel.x,
        title={"text": panel.xlabel, "standoff": 6},
        tickformat="~s",
        hoverformat=",d",
        unifiedhovertitle_text="iteration %{x}",
    )
    figure.update_yaxes(
        **axis,
        title={"text": without_mathtext(panel.ylabel), "standoff": 10},
        exponentformat="power",
        range=panel.range,
    )
    if panel.xticks is not None:
        figure.update_xaxes(
            tickvals=list(panel.xticks),
            ticktext=_tick_texts(panel.xticks.values()),
            showgrid=False,
            fixedrange=True,
        )
        figure.update_yaxes(fixedrange=True, showgrid=not panel.matrix)
        figure.update_layout(
            legend={
                "orientation": "h",
                "x": 1,
                "xanchor": "right",
                "y": 1,
                "yanchor": "top",
                "bgcolor": "rgba(0,0,0,0)",
            },
            dragmode=False,
        )
    if panel.log and panel.range:
        figure.update_yaxes(type="log", range=[math.log10(end) for end in panel.range], dtick=1)
    if panel.ticks is not None:
        shown = not panel.right and not panel.matrix
        figure.update_yaxes(
            tickvals=list(panel.ticks), ticktext=_tick_texts(panel.ticks.values()), showgrid=shown
        )
    for height, text in panel.right.items():
        figure.add_annotation(
            x=1, xref="paper", xanchor="left", y=height, text=text, showarrow=False, font_size=10
        )
    if any(marks.since is None for marks in panel.marks):
        figure.update_layout(
            yaxis2={"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True}
        )
    return figure.to_plotly_json()  # type: ignore[no-any-return]


def _traces(curve: Curve, panel: Panel, *, named: bool) -> list[Any]:
    import plotly.graph_objects as go

    meta = {"level": curve.level, "run": str(curve.run), "span": curve.span, "ifSmoothed": curve.if_smoothed}
    few = curve.marks >= np.isfinite(curve.y).sum() and curve.marks <= FEW_POINTS
    marker = {
        "size": 8 if "triangle" in curve.marker else 6,
        "color": curve.color,
        "symbol": (curve.marker or "circle") + "-open" * (curve.dash != "solid"),
    }
    trace = go.Scatter(
        **_places(curve.x), y=_numbers(curve.y), name=html.escape(curve.name, quote=False), meta=meta,
        mode="lines+markers" if curve.marks else "lines",
        marker=marker if few or not curve.marks else marker | {"maxdisplayed": SOME_MARKS},
        line={
            "color": curve.color, "width": 1.5 * curve.width, "dash": curve.dash,
            "shape": "vh" if curve.steps else "linear",
        },
        opacity=1.0 if curve.stack else curve.alpha, connectgaps=False,
        hovertemplate=f"%{{{'y' if curve.values is None else 'customdata'}:{panel.hover}}}",
    )  # fmt: skip
    if named:
        end = int(np.flatnonzero(np.isfinite(curve.y))[-1]) if np.isfinite(curve.y).any() else 0
        trace.update(mode=f"{trace.mode}+text", textposition="middle right", cliponaxis=False)
        trace.update(text=[""] * end + [html.escape(curve.label, quote=False)], textfont_color=curve.color)
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

    meta = {"level": marks.level, "run": str(marks.run), "span": 0}
    texts = [html.escape(text, quote=False) for text in marks.texts]
    name = html.escape(marks.name, quote=False)
    if marks.since is None:
        return go.Scatter(
            x=marks.x.tolist(), y=[1] * len(marks.x), yaxis="y2", mode="markers", name=name, customdata=texts,
            marker={"symbol": "x", "size": 8, "color": marks.color}, cliponaxis=False,
            hovertemplate="%{customdata}", meta=meta,
        )  # fmt: skip
    return go.Bar(
        x=((marks.since + marks.x) / 2).tolist(), width=(marks.x - marks.since).tolist(),
        y=[marks.height] * len(marks.x), base=marks.y - marks.height / 2, name=name, customdata=texts,
        marker={"color": marks.color, "opacity": marks.alpha, "line_width": 0}, hovertemplate="%{customdata}",
        meta=meta,
    )  # fmt: skip


def _spreads(spreads: Spreads, panel: Panel) -> Any:
    import plotly.graph_objects as go

    reach = {
        "array": _numbers(spreads.high - spreads.y), "arrayminus": _numbers(spreads.y - spreads.low), "type": "data",
        "symmetric": False, "thickness": 1, "width": 0, "color": INK if spreads.width else spreads.color,
    }  # fmt: skip
    name = html.escape(spreads.name, quote=False)
    common: dict[str, Any] = {
        "x": spreads.x.tolist(), "y": _numbers(spreads.y), "name": name, "error_y": reach,
        "customdata": [html.escape(text, quote=False) for text in spreads.texts],
        "hovertemplate": f"%{{customdata}}<extra>{name}</extra>",
        "meta": {"level": "", "run": str(spreads.run), "span": 0},
    }  # fmt: skip
    if spreads.width:
        return go.Bar(**common, width=spreads.width, marker={"color": spreads.color, "line_width": 0})
    return go.Scatter(
        **common, mode="markers", marker={"color": spreads.color, "symbol": spreads.marker, "size": 8}
    )


def _matrix(matrix: Matrix) -> Any:
    import plotly.graph_objects as go

    def number(row: int, column: int) -> str:
        text = matrix.text(row, column)
        return f"<b>{text}</b>" if text and matrix.bold[row, column] else text

    rows, columns = matrix.values.shape
    # Colours that fade to nothing, so that the card shows through, light or dark.
    scale = [
        [0, "rgba(217,95,14,1)"],
        [0.5, "rgba(217,95,14,0)"],
        [0.5, "rgba(44,127,184,0)"],
        [1, "rgba(44,127,184,1)"],
    ]
    return go.Heatmap(
        z=[_numbers(row) for row in matrix.values[::-1]], zmin=-1, zmax=1, colorscale=scale, showscale=False, xgap=2,
        ygap=2, x0=0, dx=1, y0=0, dy=1, hoverongaps=False, texttemplate="%{text}",
        text=[[number(rows - 1 - row, column) for column in range(columns)] for row in range(rows)],
        customdata=[[html.escape(text, quote=False) for text in row] for row in matrix.texts[::-1]],
        hovertemplate="%{customdata}<extra></extra>", meta={"level": "", "run": str(matrix.run), "span": 0},
    )  # fmt: skip


def _tick_texts(labels: Iterable[str]) -> list[str]:
    return [html.escape(label, quote=False).replace("\n", "<br>") for label in labels]


def _places(x: Floats) -> dict[str, Any]:
    """Return x as its start and step where it is even, which saves half of the page."""
    steps = np.unique(np.diff(x))
    return {"x0": x[0], "dx": steps[0]} if len(steps) == 1 else {"x": x.tolist()}


def _numbers(values: Floats) -> list[float | None]:
    """Return `values` with `DIGITS` digits; NaN as None."""
    rounded = (float(f"{value:.{DIGITS}g}") for value in values.tolist())
    return [None if np.isnan(v) else int(v) if v.is_integer() and abs(v) < 2**53 else v for v in rounded]


def without_mathtext(text: str) -> str:
    """Return `text` without mathtext, which is matplotlib's own."""
    return re.sub(r"\s*\$[^$]*\$", "", text)
